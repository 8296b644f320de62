"""How a server ends: what it was asked is answered, who comes later is refused, nothing is left behind."""

import contextlib
import shutil
import signal
import threading
import time

import psutil
import pytest
from support.load import Load
from support.raw import RawConnection, get, is_refused, post, wait_refused
from support.server import HANDLERS, LiveServer, Reply, launched, running, wait_ready

from mlserve.archive import pack

DOORS = pytest.mark.parametrize("door", ["fast", "aiohttp"])


def options(door: str, **settings: object) -> dict:
    fast = str(door == "fast").lower()
    return {"settings": {"SERVER_FAST_LANE": fast, "LOG_ACCESS_LOG": "off", **settings}, "store": HANDLERS}


def later(action) -> "Later":
    return Later(action)


class Later:
    """A call in a thread; ``result`` waits for what it returned or raised."""

    def __init__(self, action) -> None:
        self._action = action
        self._result: object = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._action()
        except BaseException as error:
            self._error = error

    def result(self) -> Reply:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


def block(server: LiveServer) -> list[Later]:
    """Requests to a handler that never answers: one is computed, one waits in its worker, two in the queue."""
    calls = [later(lambda: server.predict("blocks_forever", b"block")) for _ in range(4)]
    server.wait_for(lambda: server.metric("mlserve_queue_depth", model="blocks_forever") == 2)
    return calls


@pytest.mark.parametrize(("door", "number"), [("fast", signal.SIGTERM), ("aiohttp", signal.SIGINT)])
def test_stop_under_load_answers_every_accepted_request(tmp_path, door, number):
    with running(tmp_path, "slow.py", **options(door, DEFAULTS_BATCH_SIZE=4)) as server:
        with Load(
            server.port(), "/predictions/slow", body=b"0.02", connections=24, fresh=8, pause=0, until_refused=True
        ) as load:
            time.sleep(0.5)
            stopped = time.monotonic()
            server.signal(number)
        assert server.wait() == 0
        server.check_nothing_left()
    account = load.account
    assert account.failures == []
    assert account.refused == 24, "every connection must have been told to go, and then have been refused"
    assert set(account.statuses) <= {200, 503}
    assert any(answer.received > stopped for answer in account.answers if answer.status == 200)
    for answer in account.answers:
        if answer.status == 503:
            assert answer.received > stopped
            assert b"The server is stopping" in answer.body
    assert "Traceback" not in server.log_text()


@DOORS
def test_stop_waits_for_what_is_computed_queued_and_streamed(tmp_path, door):
    with running(tmp_path, "slow.py", "streams.py", **options(door)) as server:
        slow = [later(lambda: server.predict("slow", b"0.25")) for _ in range(4)]
        with RawConnection(server.port()) as stream, RawConnection(server.port()) as pipelined:
            stream.send(post("/predictions/streams", b"40"))
            pipelined.send(post("/predictions/slow", b"0.1") * 3)
            server.wait_for(lambda: server.metric("mlserve_queue_depth", model="slow") >= 3)
            server.signal()
            wait_refused(server.port())
            assert is_refused(server.port("management"))
            assert stream.answer().body == b"".join(b"%d " % number for number in range(40))
            answers = [pipelined.answer() for _ in range(3)]
        # The fast lane had accepted all three; aiohttp reads on only after an answer, which says that it closes.
        assert [answer and answer.status for answer in answers] == ([200] * 3 if door == "fast" else [200, None, None])
        assert [call.result().status for call in slow] == [200] * 4
        assert server.wait() == 0
        server.check_nothing_left()


@DOORS
def test_stop_is_not_held_up_by_clients_that_do_nothing(tmp_path, door):
    """Neither by an idle connection, nor by one that sends half a request, nor by one that never reads its answer."""
    with running(tmp_path, "echo.py", **options(door)) as server, contextlib.ExitStack() as stack:
        idle, used, half, silent = (stack.enter_context(RawConnection(server.port())) for _ in range(4))
        used.send(post("/predictions/echo", b"1"))
        assert used.answer().body == b"1"
        half.send(post("/predictions/echo", b"x" * 100)[:-50])
        silent.send(b"POST /predi")
        other = stack.enter_context(RawConnection(server.port("management")))
        other.send(get("/models"))
        assert other.answer().status == 200
        began = time.monotonic()
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - began < 20  # of the 30 that requests are given
        assert (idle.rest(), used.rest(), other.rest()) == (b"", b"", b""), "idle connections end without a reset"
        server.check_nothing_left()


def test_second_signal_ends_at_once_although_a_handler_blocks(tmp_path):
    with running(tmp_path, "blocks_forever.py", **options("fast")) as server:
        blocked = block(server)
        server.signal(signal.SIGINT)
        wait_refused(server.port())
        began = time.monotonic()
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert time.monotonic() - began < 20
        server.check_nothing_left()
        for call in blocked:
            with contextlib.suppress(ConnectionError):
                assert call.result().status in (500, 503)


def test_request_that_outlasts_the_grace_is_told_so(tmp_path):
    with running(tmp_path, "blocks_forever.py", **options("fast", SERVER_SHUTDOWN_GRACE=0.5)) as server:
        blocked = block(server)
        began = time.monotonic()
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - began < 25  # of 30 by default
        for call in blocked:
            code, _, message = call.result().error()
            assert code in (500, 503)
            assert "stop" in message.lower()
        server.check_nothing_left()


def test_signal_while_models_load_ends_the_start(tmp_path):
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(600)\n")
    with launched(tmp_path, "endless.py", store=tmp_path) as server:
        wait_ready(server, "starting")
        server.wait_for(lambda: server.request("GET", "/models/endless", api="management").status == 200)
        server.wait_for(lambda: server.describe("endless")["workers"][0]["pid"] > 0)
        assert server.request("GET", "/ping").status == 500
        began = time.monotonic()
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - began < 25
        server.check_nothing_left()


@pytest.mark.parametrize("body", [b"idle", b"block"])
def test_workers_of_a_killed_server_end_by_themselves(tmp_path, body):
    """An idle one at once, one in the middle of a batch two seconds later."""
    with launched(tmp_path, "blocks_forever.py", **options("fast", DEFAULTS_WORKERS=2)) as server:
        wait_ready(server)
        with RawConnection(server.port()) as client:
            client.send(post("/predictions/blocks_forever", body))
            if body == b"idle":
                assert client.answer().status == 200
            else:
                time.sleep(0.3)
            workers = [psutil.Process(pid) for pid in server.worker_pids("blocks_forever")]
            assert len(workers) == 2
            server.signal(signal.SIGKILL)
            assert server.wait() == -signal.SIGKILL
            until = time.monotonic() + 20
            while server.family() and time.monotonic() < until:
                time.sleep(0.02)
        assert not server.family()


@DOORS
def test_large_answer_that_is_being_read_slowly_arrives_whole(tmp_path, door):
    """The model has answered, the client has not read it all: stopping must not cut the connection under it."""
    (tmp_path / "large.py").write_text("def handle(data, context):\n    return [b'x' * (24 << 20)] if data else None\n")
    with running(tmp_path, "large.py", **{**options(door), "store": tmp_path}) as server:
        with RawConnection(server.port()) as client:
            client.send(post("/predictions/large", b"x"))
            head = client.socket.recv(4096)
            server.signal()
            wait_refused(server.port())
            size = len(head)
            while piece := client.socket.recv(1 << 20):
                size += len(piece)
                time.sleep(0.01)
        assert head.startswith(b"HTTP/1.1 200")
        assert size > 24 << 20
        assert server.wait() == 0
        server.check_nothing_left()


def test_stop_while_a_model_is_registered_answers_that_call(tmp_path):
    shutil.copy(HANDLERS / "slow_load.py", tmp_path / "slow_load.py")
    pack(model_name="late", version="1", handler=str(tmp_path / "slow_load.py"), export_path=tmp_path)
    with running(tmp_path, store=tmp_path) as server:
        call = later(
            lambda: server.request("POST", "/models?url=late.mar&initial_workers=1", api="management", timeout=20)
        )
        server.wait_for(lambda: server.manage("GET", "/models")["models"])
        began = time.monotonic()
        server.signal()
        assert server.wait() == 0
        assert time.monotonic() - began < 25
        assert call.result().error()[0] in (409, 500, 503)
        server.check_nothing_left()
        assert "Traceback" not in server.log_text()
