"""Nothing that an operator does to a loaded server costs a request: not scaling, not switching versions, not a worker's
violent death. Through both doors."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from support.load import Load
from support.server import LiveServer, running

from mlserve.archive import pack

VERSIONED = """
import os, time

def handle(data, context):
    if data is None:
        return None
    time.sleep(max(float(bytes(row["body"])) for row in data))
    return [f"{context.manifest['model']['modelVersion']} {os.getpid()}"] * len(data)
"""


def build_store(directory: Path) -> Path:
    """Two versions of one model, told apart by their answers, which also hold the worker's process id."""
    store = directory / "store"
    store.mkdir()
    handler = directory / "versioned.py"
    handler.write_text(VERSIONED)
    config = directory / "model-config.yaml"
    config.write_text("batchSize: 4\nmaxBatchDelay: 2\n")
    for version in ("1.0", "2.0"):
        made = pack(model_name="m", version=version, handler=str(handler), config_file=config, export_path=directory)
        made.rename(store / f"m-{version}.mar")
    return store


@pytest.fixture(scope="module", params=["fast", "aiohttp"])
def server(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("load")
    settings = {"SERVER_FAST_LANE": str(request.param == "fast").lower(), "LOG_ACCESS_LOG": "off"}
    with running(directory, "m-1.0.mar", settings=settings, store=build_store(directory)) as live:
        live.manage("POST", "/models?url=m-2.0.mar&initial_workers=1")
        yield live


def check_clean(load: Load, at_least: int = 100) -> None:
    account = load.account
    assert (account.failures, account.refused) == ([], 0)
    assert set(account.statuses) == {200}
    assert len(account.answers) >= at_least, "too little load to show anything"


def pids(load: Load) -> set[int]:
    return {int(answer.body.split()[1]) for answer in load.account.answers}


def test_scaling_up_and_down_loses_no_request(server: LiveServer):
    with Load(server.port(), "/predictions/m/1.0", body=b"0.001") as load:
        for count in (2, 1, 2, 1):
            server.manage("PUT", f"/models/m/1.0?min_worker={count}&max_worker={count}&synchronous=true")
            assert len(server.worker_pids("m/1.0")) == count
            time.sleep(0.2)
    check_clean(load)
    assert len(pids(load)) == 3, "the second worker never served, so taking it away showed nothing"


def test_switching_the_default_version_is_atomic(server: LiveServer):
    """Every answer is of one of the versions, and of the new one from the moment that the call has returned."""
    moments: list[tuple[float, float, bytes]] = []  # the switch was called, had returned, to which version
    with Load(server.port(), "/predictions/m", body=b"0.001") as load:
        for version in (b"2.0", b"1.0") * 10:
            called = time.monotonic()
            server.manage("PUT", f"/models/m/{version.decode()}/set-default")
            moments.append((called, time.monotonic(), version))
            time.sleep(0.06)
    check_clean(load)
    judged = 0
    for answer in load.account.answers:
        version = answer.body.split()[0]
        assert version in (b"1.0", b"2.0")
        before = [at for at in moments if at[1] <= answer.sent]
        during = [at for at in moments if at[1] > answer.sent and at[0] < answer.received]
        if before and not during:
            judged += 1
            assert version == before[-1][2], "a request that was sent after the switch got the old version"
    assert judged > 100


def is_replaced(server: LiveServer, workers: list[int]) -> bool:
    """The first of the workers is gone, and as many as before are ready."""
    now = server.worker_pids("m/1.0")
    return workers[0] not in now and len(now) == len(workers)


def test_killing_one_of_two_workers_fails_no_request(server: LiveServer):
    server.manage("PUT", "/models/m/1.0?min_worker=2&max_worker=2&synchronous=true")
    before, retries = server.restarts(), server.metric("mlserve_request_retries_total", model="m", version="1.0")
    with Load(server.port(), "/predictions/m/1.0", body=b"0.01", connections=16, pause=0) as load:
        for _ in range(2):
            workers = server.worker_pids("m/1.0")
            os.kill(workers[0], signal.SIGKILL)
            server.wait_for(partial(is_replaced, server, workers))
            time.sleep(0.1)
    check_clean(load)
    assert server.restarts() == before + 2
    retried = server.metric("mlserve_request_retries_total", model="m", version="1.0") - retries
    assert retried > 0, "no worker had a request when it was killed, so nothing was shown"
    exits = [worker["lastExit"] for worker in server.describe("m", "1.0")["workers"]]
    assert any("was killed by SIGKILL" in text for text in exits), exits
    server.manage("PUT", "/models/m/1.0?min_worker=1&max_worker=1&synchronous=true")


def test_unregistering_a_version_answers_what_was_accepted(server: LiveServer):
    """Requests that come later are told that there is no such version; nothing in between is lost or cut off."""
    server.manage("PUT", "/models/m/1.0/set-default")
    with Load(server.port(), "/predictions/m/2.0", body=b"0.001") as load:
        time.sleep(0.2)
        server.manage("DELETE", "/models/m/2.0")
        gone = time.monotonic()
        time.sleep(0.2)
    account = load.account
    assert (account.failures, account.refused) == ([], 0)
    assert set(account.statuses) == {200, 404}
    assert {answer.status for answer in account.since(gone)} == {404}
    server.manage("POST", "/models?url=m-2.0.mar&initial_workers=1")


def test_registering_further_models_disturbs_no_request(server: LiveServer):
    """Unpacking, starting and failing to start go on beside the load."""
    with Load(server.port(), "/predictions/m", body=b"0.001") as load:
        assert server.request("POST", "/models?url=m-1.0.mar", api="management").status == 409
        server.manage("DELETE", "/models/m/2.0")
        server.manage("POST", "/models?url=m-2.0.mar&initial_workers=1")
    check_clean(load)
