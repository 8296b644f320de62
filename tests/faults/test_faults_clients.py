"""Clients that wait no longer, ask too much, or read a stream to its end or not: no worker suffers, nothing is left."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from support.raw import RawConnection, post
from support.server import HANDLERS, LiveServer, Reply, running

MODELS = ("slow", "watches_cancel", "streams", "streams_batch", "echo", "small=slow.py", "mates=slow.py")
CONFIG = """
[model.small]
job_queue_size = 2

[model.mates]
batch_size = 4
"""


@pytest.fixture(scope="module", params=["fast", "aiohttp"])
def server(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("clients")
    (directory / "mlserve.toml").write_text(CONFIG)
    fast = str(request.param == "fast").lower()
    settings = {"SERVER_FAST_LANE": fast, "LOG_ACCESS_LOG": "off", "SERVER_HEADER_TIMEOUT": 1}
    names = [name if "=" in name else f"{name}.py" for name in MODELS]
    with running(directory, *names, settings=settings, store=HANDLERS, args=["--config", "mlserve.toml"]) as live:
        yield live


@pytest.fixture(autouse=True)
def nothing_is_left(server):
    """Every queue is empty afterwards, and no worker has been restarted."""
    yield
    server.wait_for(lambda: server.metric("mlserve_queue_depth") == 0)
    assert server.restarts() == 0
    assert server.predict("echo", b"still here").body == b"still here"
    assert "\nTraceback" not in server.log_text(), "a worker's traceback comes with its name in front"


@contextlib.contextmanager
def in_background(*calls: Callable[[], Reply]) -> Iterator[list[Reply]]:
    """Run calls side by side; the list holds their answers after the block."""
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda call=call: replies.append(call())) for call in calls]
    for thread in threads:
        thread.start()
    yield replies
    for thread in threads:
        thread.join(30)
    assert len(replies) == len(calls)


def depth(server: LiveServer, model: str) -> float:
    return server.metric("mlserve_queue_depth", model=model)


# -- deadlines --------------------------------------------------------------------------------------------------------


def test_deadline_in_the_worker_is_told_at_its_time(server):
    began = time.monotonic()
    code, kind, message = server.predict("slow", b"3", x_request_timeout="0.2").error()
    assert (code, kind) == (504, "RequestTimeoutException")
    assert "deadline of 0.2 s passed while it was in the worker" in message
    assert 0.15 < time.monotonic() - began < 2.8
    assert server.predict("slow", b"0").body == b"done"


def test_deadline_in_the_queue_takes_the_request_out(server):
    with in_background(*[lambda: server.predict("slow", b"0.6")] * 3):
        server.wait_for(lambda: depth(server, "slow") == 1)  # one is computed, one waits in the worker
        code, _, message = server.predict("slow", b"0", x_request_timeout="100ms").error()
        assert code == 504
        assert "deadline of 0.1 s passed while it was in the queue" in message
        assert depth(server, "slow") <= 1


def test_deadline_that_is_met_changes_nothing(server):
    for value in ("5", "5s", "5000ms", "2.5"):
        assert server.predict("slow", b"0", x_request_timeout=value).status == 200


# -- clients that go --------------------------------------------------------------------------------------------------


def test_client_that_goes_while_its_request_is_computed_cancels_it(server):
    with RawConnection(server.port()) as client:
        client.send(post("/predictions/watches_cancel", b"x"))
        server.wait_for(lambda: "computing" in server.describe("watches_cancel")["workers"][0]["logTail"])
    server.wait_for(lambda: "saw the cancel" in server.describe("watches_cancel")["workers"][0]["logTail"])


def test_clients_that_go_leave_the_queue_without_being_computed(server):
    """Twenty requests of a second each would keep the worker busy for twenty seconds."""
    before = server.metric("mlserve_requests_cancelled_total", model="slow")
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawConnection(server.port())) for _ in range(22)]
        clients[0].send(post("/predictions/slow", b"0.5"))
        for client in clients[1:]:
            client.send(post("/predictions/slow", b"1"))
        server.wait_for(lambda: depth(server, "slow") >= 20)
    assert server.predict("slow", b"0").body == b"done"
    assert time.monotonic() - began < 15
    assert server.metric("mlserve_requests_cancelled_total", model="slow") == before + 22


def test_client_that_goes_does_not_disturb_its_batch_mates(server):
    """All four are in one batch, behind one that keeps the worker busy meanwhile."""
    with (
        in_background(
            lambda: server.predict("mates", b"0.3"), *[lambda: server.predict("mates", b"0.1")] * 3
        ) as replies,
        RawConnection(server.port()) as client,
    ):
        client.send(post("/predictions/mates", b"0.1"))
        time.sleep(0.2)
    assert [reply.body for reply in replies] == [b"done"] * 4


def test_client_that_stops_sending_is_told_so_and_cut_off(server):
    with RawConnection(server.port()) as client, RawConnection(server.port("management")) as operator:
        client.send(post("/predictions/echo", b"x" * 100)[:-50])
        operator.send(post("/models", b"x" * 100)[:-50])
        for connection in (client, operator):
            code, _, message = connection.answer().error()
            assert code == 408
            assert "header_timeout" in message
            assert connection.rest() == b""


def test_client_that_sends_slowly_is_waited_for(server):
    data = post("/predictions/echo", b"x" * 100)
    with RawConnection(server.port()) as client:
        for start in range(0, 100, 25):
            client.send(data[:-100] if not start else b"")
            client.send(b"x" * 25)
            time.sleep(0.4)
        assert client.answer().body == b"x" * 100


# -- too much ---------------------------------------------------------------------------------------------------------


def test_full_queue_refuses_with_retry_after_and_serves_what_it_has(server):
    def ask(number: int) -> Reply:
        time.sleep(number * 0.05)  # one that comes in the same moment as another finds the worker's place not yet taken
        return server.predict("small", b"0.8")

    with in_background(*(partial(ask, number) for number in range(4))) as replies:
        server.wait_for(lambda: depth(server, "small") == 2)
        refused = server.predict("small", b"0")
        code, kind, message = refused.error()
        assert (code, kind) == (503, "ServiceUnavailableException")
        assert int(refused.headers["retry-after"]) >= 1
        assert "job_queue_size" in message
        assert server.predict("echo", b"not full").status == 200
        assert server.request("GET", "/ping").status == 200
    assert [reply.status for reply in replies] == [200] * 4
    assert server.metric("mlserve_requests_rejected_total", model="small") >= 1


def test_storm_on_a_full_queue_ends_every_request(server):
    with in_background(*[lambda: server.predict("small", b"0.02")] * 40) as replies:
        pass
    statuses = {reply.status for reply in replies}
    assert statuses == {200, 503}


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["streams", "streams_batch"])
def test_stream_arrives_in_chunks_that_add_up(server, model):
    with RawConnection(server.port()) as client:
        for count in (1, 5, 200):
            client.send(post(f"/predictions/{model}", b"%d" % count, "x-request-id: mine"))
            reply = client.answer()
            assert reply.status == 200
            assert reply.headers["transfer-encoding"] == "chunked"
            assert reply.headers["x-request-id"] == "mine"
            assert reply.body == b"".join(b"%d " % number for number in range(count))


def test_plain_answer_of_a_streaming_handler_is_not_chunked(server):
    reply = server.predict("streams", b"plain")
    assert (reply.status, reply.body) == (200, b"plain")
    assert "content-length" in reply.headers


def test_stream_that_breaks_ends_without_its_last_chunk(server):
    """The status has been sent: only an incomplete body can tell. The connection must not be taken for usable."""
    with RawConnection(server.port()) as client:
        client.send(post("/predictions/streams", b"fail"))
        data = b""
        with contextlib.suppress(ConnectionResetError):
            data = client.rest()
        assert not data.endswith(b"0\r\n\r\n")
        assert b"ValueError" not in data


def test_stream_is_closed_when_its_client_goes(server):
    with RawConnection(server.port()) as client:
        client.send(post("/predictions/streams", b"wait"))
        assert client.socket.recv(4096).startswith(b"HTTP/1.1 200")
        time.sleep(0.05)
    server.wait_for(lambda: "closed" in server.describe("streams")["workers"][0]["logTail"])
    assert server.predict("streams", b"2").body == b"0 1 "


def test_stream_to_http_1_0_ends_with_its_connection(server):
    with RawConnection(server.port()) as client:
        client.send(post("/predictions/streams", b"3", version="1.0"))
        reply = client.answer()
        assert "transfer-encoding" not in reply.headers
        assert reply.body == b"0 1 2 "
