"""Worker processes over a socket pair: loading, answering, faults, and how they end."""

import os
import signal

import pytest
from support.worker_driver import Driver, wait_for

from mlserve.wire.frames import Kind, frame


@pytest.fixture
def worker():
    drivers = []

    def start(**options):
        drivers.append(Driver(**options))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.close()


@pytest.fixture
def loaded(worker):
    def start(handler, *, arenas=False, **settings):
        driver = worker(arenas=arenas)
        kind, _, meta, _ = driver.load(handler, **settings)
        assert kind == Kind.READY, meta
        return driver

    return start


def test_batch_is_answered_in_order(loaded):
    driver = loaded("echo.py")
    meta, answers = driver.ask(b"one", b"", b"three", batch_id=7)
    assert answers == [b"one", b"", b"three"]
    assert [item.content_type for item in meta.items] == ["application/octet-stream"] * 3
    assert meta.received <= meta.started <= meta.finished
    assert meta.inference > 0


def test_results_carry_their_batch_id_when_two_are_in_flight(loaded):
    driver = loaded("echo")
    driver.batch(1, b"a")
    driver.batch(2, b"b")
    assert driver.result(1)[1] == [b"a"]
    assert driver.result(2)[1] == [b"b"]


def test_drain_answers_what_is_queued_and_exits_0(loaded):
    driver = loaded("slow")
    driver.batch(1, b"0.1")
    driver.batch(2, b"0")
    driver.send(frame(Kind.DRAIN))
    assert driver.result(1)[1] == [b"done"]
    assert driver.result(2)[1] == [b"done"]
    assert driver.end() == (0, "", "")


def test_end_of_the_server_ends_an_idle_worker_quietly(loaded):
    driver = loaded("echo")
    driver.sock.close()
    assert driver.end(timeout=5) == (0, "", "")


def test_end_of_the_server_ends_a_worker_whose_handler_never_returns(loaded):
    driver = loaded("blocks_forever")
    driver.batch(1, b"block")
    driver.sock.close()
    assert driver.end(timeout=10)[0] == 0


def test_end_of_the_server_before_load_exits_0(worker):
    driver = worker()
    assert driver.next()[0] == Kind.HELLO
    driver.sock.close()
    assert driver.end() == (0, "", "")


@pytest.mark.parametrize(
    ("handler", "kind", "message"),
    [
        ("raises_on_load", "handler_failed", "FileNotFoundError: weights.pt is missing"),
        ("out_of_memory_on_load", "out_of_memory", "MemoryError"),
        ("missing_dependency", "handler_failed", "No module named 'module_that_nobody_has'"),
        ("two_classes", "handler_failed", "more than one handler class: First, Second"),
        ("no_such_handler", "handler_failed", "there is no no_such_handler.py in the model's directory"),
        ("echo:wrong_name", "handler_failed", "has no function or class 'wrong_name'"),
    ],
)
def test_failed_load_is_told_with_its_traceback_and_exits_3(worker, handler, kind, message):
    driver = worker()
    got, _, failed, _ = driver.load(handler)
    assert got == Kind.FAILED
    assert failed.kind == kind
    assert message in failed.message
    assert failed.traceback.startswith("Traceback (most recent call last)")
    code, _, stderr = driver.end()
    assert code == 3
    assert message in stderr


def test_ping_is_answered_while_loading_and_while_computing(worker):
    driver = worker()
    driver.send(frame(Kind.PING, 1))
    kind, _, _, _ = driver.load("slow_load", config={"load_seconds": 0.2})
    assert kind == Kind.PONG
    driver.send(frame(Kind.PING, 2))
    assert driver.next()[:2] == (Kind.PONG, 2)
    assert driver.next()[0] == Kind.READY
    driver.send(frame(Kind.DRAIN))
    busy = worker()
    assert busy.load("slow")[0] == Kind.READY
    busy.batch(1, b"0.2")
    busy.send(frame(Kind.PING, 9))
    assert busy.next()[:2] == (Kind.PONG, 9)
    assert busy.result(1)[1] == [b"done"]


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x6d\x02" + bytes(14), b"\x6d\x01\x63" + bytes(13)])
def test_bytes_that_are_no_frames_end_the_worker_with_code_4(loaded, garbage):
    driver = loaded("echo")
    driver.send(garbage)
    code, _, stderr = driver.end()
    assert code == 4
    assert "protocol error" in stderr


def test_batch_whose_parts_do_not_add_up_ends_the_worker_with_code_4(loaded):
    driver = loaded("echo")
    driver.send(frame(Kind.BATCH, 1, [[["r", [["body", "", 10, -1]], []]]], b"short"))
    code, _, stderr = driver.end()
    assert code == 4
    assert "announce 10 bytes" in stderr


def test_sys_exit_of_a_handler_keeps_its_code(loaded):
    driver = loaded("exits")
    driver.batch(1, b"42")
    assert driver.end()[0] == 42


def test_crash_leaves_its_python_stack_on_stderr(loaded):
    driver = loaded("segfaults")
    driver.batch(1, b"crash")
    code, _, stderr = driver.end()
    assert code == -signal.SIGSEGV
    assert "segfaults.py" in stderr


def test_lost_device_is_answered_then_ends_the_worker_with_code_5(loaded):
    driver = loaded("loses_device")
    meta, answers = driver.ask(b"fine", b"lose")
    assert answers == ["handler_failed", "handler_failed"]
    assert "illegal memory access" in meta.items[0].message
    assert driver.end()[0] == 5


def test_ctrl_c_in_the_terminal_does_not_end_a_worker_but_sigterm_does(loaded):
    driver = loaded("echo")
    os.kill(driver.process.pid, signal.SIGINT)
    assert driver.ask(b"still here")[1] == [b"still here"]
    os.kill(driver.process.pid, signal.SIGTERM)
    assert driver.end()[0] == -signal.SIGTERM


def test_handler_that_prints_a_lot_does_not_disturb_the_link(loaded):
    driver = loaded("prints_a_lot")
    for batch_id in (1, 2):
        driver.batch(batch_id, b"x" * 100)
    assert driver.result(1)[1] == [b"x" * 100]
    assert driver.result(2)[1] == [b"x" * 100]
    driver.send(frame(Kind.DRAIN))
    code, stdout, stderr = driver.end()
    assert code == 0
    assert stdout.count("\n") == stderr.count("\n") == len(driver.logs) == 400
    assert driver.logs[0].logger.endswith("prints_a_lot")
    assert driver.logs[-1].message == "noise 199"


def test_forked_child_of_a_handler_neither_writes_to_the_link_nor_holds_it_open(loaded):
    driver = loaded("forks")
    _, (pid,) = driver.ask(b"30")
    try:
        os.kill(driver.process.pid, signal.SIGKILL)
        assert driver.sock.recv(1) == b"", "the end of the worker is seen although its child lives"
        assert not any("from the child" in record.message for record in driver.logs)
        wait_for(lambda: "from the child" in driver.printed()[1])
    finally:
        os.kill(int(pid), signal.SIGKILL)


def test_log_level_comes_from_the_environment(worker):
    driver = worker(env={**os.environ, "MLSERVE_WORKER_LOG_LEVEL": "warning"})
    assert driver.load("prints_a_lot")[0] == Kind.READY
    driver.ask(b"x")
    assert driver.logs == []


def test_async_handler_runs_on_one_event_loop(loaded):
    driver = loaded("awaits")
    assert driver.ask(b"a", b"b")[1] == [b"a", b"b"]
    assert driver.ask(b"c", batch_id=2)[1] == [b"c"]


def test_cancelled_batch_that_has_not_begun_is_not_computed(loaded):
    driver = loaded("slow")
    driver.batch(1, b"0.2")
    driver.batch(2, b"9", b"0")
    driver.cancel(2, 0)
    assert driver.result(1)[1] == [b"done"]
    assert driver.result(2)[1] == ["cancelled", b"done"]


def test_handler_sees_a_cancel_while_it_computes(loaded):
    driver = loaded("watches_cancel")
    driver.batch(1, b"x")
    wait_for(lambda: "computing" in driver.printed()[0])
    driver.cancel(1, 0)
    assert driver.result(1)[1] == [b"stopped"]
    driver.send(frame(Kind.DRAIN))
    assert driver.end()[1] == "computing\nsaw the cancel\n"


def test_cancel_of_an_unknown_batch_changes_nothing(loaded):
    driver = loaded("echo")
    driver.cancel(99, 3)
    assert driver.ask(b"a")[1] == [b"a"]


def test_large_payloads_go_both_ways_through_the_arenas(loaded):
    driver = loaded("echo", arenas=True)
    large = os.urandom(300_000)
    meta, answers = driver.ask(large, b"small" * 60_000, arena=True)
    assert answers == [large, b"small" * 60_000]
    assert all(item.offset >= 0 for item in meta.items)


def test_released_replies_make_room_and_unreleased_ones_go_inline(loaded):
    driver = loaded("echo", arenas=True)
    large = bytes(1 << 20)
    offsets = [driver.ask(large, batch_id=batch_id)[0].items[0].offset for batch_id in range(1, 6)]
    assert offsets[-1] == -1, "the fifth MiB does not fit 4 MiB"
    assert len(set(offsets[:4])) == 4
    driver.send(frame(Kind.RELEASE, 3))
    assert driver.ask(large, batch_id=6)[0].items[0].offset == offsets[2]


def test_part_outside_of_the_arena_ends_the_worker_with_code_4(loaded):
    driver = loaded("echo", arenas=True)
    driver.send(frame(Kind.BATCH, 1, [[["r", [["body", "", 10, 1 << 40]], []]]]))
    assert driver.end()[0] == 4
