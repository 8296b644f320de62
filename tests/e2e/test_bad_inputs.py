"""Whatever comes in, a server refuses it clearly and serves the next request. Through both doors."""

import shutil
import socket
from urllib.parse import quote

import psutil
import pytest
from support.bad_calls import call_cases, write_bad_archives
from support.bad_requests import MAX_REQUEST, Case, inference_cases
from support.load import Load
from support.raw import RawConnection
from support.server import HANDLERS, LiveServer, Reply, running

from mlserve.archive import pack

CASES = inference_cases()


@pytest.fixture(scope="module", params=["fast", "aiohttp"])
def door(request):
    return request.param


@pytest.fixture(scope="module")
def store(door, tmp_path_factory):
    directory = tmp_path_factory.mktemp("bad") / "store"
    directory.mkdir()
    shutil.copy(HANDLERS / "echo.py", directory)
    pack(model_name="good", version="1", handler=str(HANDLERS / "echo.py"), export_path=directory)
    return directory


@pytest.fixture(scope="module")
def server(door, store):
    settings = {
        "SERVER_FAST_LANE": str(door == "fast").lower(),
        "SERVER_MAX_REQUEST_SIZE": MAX_REQUEST,
        "LOG_ACCESS_LOG": "off",
    }
    with running(store.parent, "echo.py", settings=settings, store=store) as live:
        yield live


def refusals(port: int, case: Case) -> tuple[list[Reply], bool]:
    """Every answer on a connection of its own, and whether the server ended it."""
    answers: list[Reply] = []
    with RawConnection(port, timeout=10) as client:
        client.send(case.data)
        if case.hang_up:
            client.socket.shutdown(socket.SHUT_WR)
        ended = False
        while not ended and (case.broken or len(answers) < case.good + 1):
            answer = client.answer()
            if answer is None:
                ended = True
            elif answer.status >= 200:
                answers.append(answer)
    return answers, ended


def judge(case: Case, answers: list[Reply], ended: bool, door: str) -> str:
    """What is wrong with the answers, or nothing."""
    statuses = [answer.status for answer in answers]
    good = case.good if door == "fast" else 0  # aiohttp reads all that has come before it answers anything
    if statuses[:good] != [200] * good:
        return f"good requests in front were answered with {statuses}"
    refused = answers[good:]
    if not refused:
        return "" if case.may_close and ended else "no answer"
    if len(refused) > 1:
        return f"more than one answer: {statuses}"
    status = refused[0].status
    if status not in case.statuses:
        return f"answered with {status}: {refused[0].body[:200]!r}"
    code, kind, message = refused[0].error()
    if code != status or not kind.endswith("Exception") or not message or case.mentions not in message:
        return f"a poor refusal: {refused[0].body!r}"
    if case.broken and not ended:
        return "the connection stays open"
    return ""


def check_healthy(server: LiveServer) -> None:
    assert server.request("GET", "/ping").json() == {"status": "Healthy"}
    assert server.predict("echo", b"well").body == b"well"
    assert server.metric("mlserve_queue_depth", model="echo") == 0
    assert server.restarts() == 0
    assert server.process.poll() is None
    assert "Traceback" not in server.log_text()


def test_there_are_enough_of_them():
    assert len(CASES) >= 500
    assert len({case.data for case in CASES}) >= 500
    assert [case.data for case in inference_cases()] == [case.data for case in CASES]


def assert_refused(port: int, cases: list[Case], door: str) -> None:
    wrong = []
    for case in cases:
        try:
            fault = judge(case, *refusals(port, case), door)
        except Exception as error:  # told with the case it belongs to
            fault = repr(error)
        if fault:
            wrong.append(f"{case.name}: {fault}")
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong)


def test_every_bad_request_is_refused_clearly(server, door):
    check_healthy(server)
    files = psutil.Process(server.process.pid).num_fds()
    with Load(server.port(), "/predictions/echo", body=b"good", connections=2) as load:
        assert_refused(server.port(), CASES, door)
    assert (load.account.failures, set(load.account.statuses)) == ([], {200}), "good requests beside them suffered"
    assert {answer.body for answer in load.account.answers} == {b"good"}
    check_healthy(server)
    server.wait_for(lambda: psutil.Process(server.process.pid).num_fds() <= files)  # no connection is left open


def test_bad_management_calls_change_nothing(server):
    before = server.describe("echo")
    assert_refused(server.port("management"), call_cases(), "aiohttp")
    after = server.describe("echo")
    for description in (before, after):
        description["workers"][0].pop("memoryUsage")
    assert after == before
    check_healthy(server)


def test_no_bad_archive_is_believed(server, store, tmp_path):
    """Truncated, forged, or leading outside: each is a 4xx, and nothing of it stays or runs."""
    answers = {}
    names = write_bad_archives(store, store / "good.mar")
    models, unpacked = server.manage("GET", "/models"), server.temporary_files()
    for name in names:
        reply = server.request("POST", f"/models?url={quote(name)}&initial_workers=1", api="management")
        answers[name] = reply.error() if reply.status != 200 else (200, "", reply.body)
        if reply.status == 200:  # or the next one would be refused for being there already
            server.manage("DELETE", "/models/bad")
    assert {name: answer for name, answer in answers.items() if not 400 <= answer[0] < 500} == {}
    assert server.manage("GET", "/models") == models
    server.wait_for(lambda: server.temporary_files() == unpacked)
    assert not list(store.parent.rglob("slipped*"))
    check_healthy(server)


@pytest.mark.parametrize("api", ["management", "metrics"])
def test_noise_on_the_other_ports_is_refused(server, api):
    cases = [
        case
        for case in CASES
        if case.name.startswith(("noise", "TLS", "framing", "header of", "url of")) and not case.good
    ]
    assert len(cases) > 80
    assert_refused(server.port(api), cases, "aiohttp")
    check_healthy(server)
