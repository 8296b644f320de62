"""Every way a worker can die: told apart, paid back, and started again."""

import asyncio
import os
import signal
import time

import pytest

from mlserve.engine.local import LoadOptions
from mlserve.errors import ErrorKind, WorkerStartError

SLOW = """
import time
def handle(data, context):
    if data:
        time.sleep(float(data[0]["body"]))
    return data and [row["body"] for row in data]
"""


async def _restarted(pool, events, count=1):
    await events.until(lambda: len(events.ready) == count + 1 and pool.states()["READY"] == 1)
    (info,) = pool.describe()
    return info


def test_kill_while_idle_is_noticed_and_repaired(rig):
    async def test(pool, events):
        await pool.scale(1)
        os.kill(pool.describe()[0].pid, signal.SIGKILL)
        info = await _restarted(pool, events)
        ((slot, started, unstarted, error),) = events.lost
        assert (slot, started, unstarted) == (events.ready[0], [], [])
        assert "was killed" in error.message
        assert error.kind is ErrorKind.WORKER_DIED
        assert (info.worker_id, info.restarts) == (9000, 1)
        assert "SIGKILL" in info.last_exit
        assert sum(pool.restarts.values()) == 1
        assert await events.ask(events.ready[1], b"again") == [b"again"]

    rig.run(rig.spec(), test)
    assert [state for _, state in rig.states][:6] == ["LOADING", "READY", "BACKOFF", "STARTING", "LOADING", "READY"]


def test_kill_while_computing_gives_back_what_had_not_started(rig):
    async def test(pool, events):
        await pool.scale(1)
        (slot,) = events.ready
        first, second = events.batch(b"60"), events.batch(b"0")
        slot.send(first)
        slot.send(second)
        os.kill(pool.describe()[0].pid, signal.SIGKILL)
        await events.until(lambda: events.lost)
        ((_slot, started, unstarted, _error),) = events.lost
        assert (started, unstarted) == ([first], [second])
        assert slot.in_flight == 0
        assert events.results == {}
        assert events.closing == [slot]
        await _restarted(pool, events)

    rig.run(rig.spec(SLOW), test)


def test_results_that_were_written_before_the_death_are_not_lost(rig):
    source = """
    import os
    def handle(data, context):
        if data and data[0]["body"] == b"die":
            os._exit(17)
        return data and [row["body"] for row in data]
    """

    async def test(pool, events):
        await pool.scale(1)
        (slot,) = events.ready
        good, bad = events.batch(b"x" * 100_000), events.batch(b"die")
        slot.send(good)
        slot.send(bad)
        await events.until(lambda: events.lost)
        assert events.results == {good.batch_id: [b"x" * 100_000]}
        ((_slot, started, unstarted, error),) = events.lost
        assert (started, unstarted) == ([bad], [])
        assert "exited with code 17" in error.message
        await _restarted(pool, events)
        assert pool.restarts["exit"] == 1

    rig.run(rig.spec(source), test)


def test_a_crash_in_native_code_names_the_signal_and_leaves_its_stack(rig):
    source = """
    import faulthandler
    def handle(data, context):
        if data:
            faulthandler._sigsegv()
    """

    async def test(pool, events):
        await pool.scale(1)
        events.ready[0].send(events.batch(b""))
        await events.until(lambda: events.lost)
        error = events.lost[0][3]
        assert "was killed by SIGSEGV" in error.message
        assert "model_handler.py" in error.detail
        await events.until(lambda: pool.restarts["signal"] == 1)

    rig.run(rig.spec(source), test)


def test_a_load_error_fails_the_scale_once_with_its_traceback(rig):
    source = """
    class Handler:
        def initialize(self, context):
            context.metrics.add_counter("Tried", 1)
            import a_library_that_is_not_there

        def handle(self, data, context):
            return data
    """

    async def test(pool, events):
        with pytest.raises(WorkerStartError) as caught:
            await pool.scale(2)
        assert [record.name for metrics in events.failed_loads for record in metrics] == ["Tried", "Tried"]
        assert caught.value.message.startswith("Failed to start workers for model m version: 1.0")
        assert "a_library_that_is_not_there" in caught.value.message
        assert "Traceback" in caught.value.detail
        assert pool.target == 0
        assert {info.state for info in pool.describe()} == {"FAILED"}
        assert all("a_library_that_is_not_there" in info.traceback for info in pool.describe())
        assert sum(pool.restarts.values()) == 0, "a model that cannot load is not tried again and again"
        assert len(events.errors) == 1
        rig.spec()  # the handler is repaired
        await pool.scale(1)
        assert [info.state for info in pool.describe()] == ["READY"]

    rig.run(rig.spec(source), test)


def test_a_failed_scale_up_keeps_the_workers_that_live(rig):
    source = """
    import os
    if os.path.exists("one"):
        raise RuntimeError("only one fits")
    open("one", "w").close()
    def handle(data, context):
        return data
    """

    async def test(pool, events):
        await pool.scale(1)
        with pytest.raises(WorkerStartError, match="only one fits"):
            await pool.scale(2)
        assert pool.target == 1
        assert pool.states() == {"READY": 1, "FAILED": 1}
        assert events.errors == [], "one worker is left"
        await pool.scale(1)
        assert pool.states() == {"READY": 1}

    rig.run(rig.spec(source), test)


def test_startup_timeout_names_the_setting(rig):
    async def test(pool, events):
        begun = time.monotonic()
        with pytest.raises(WorkerStartError, match=r"startup_timeout is 0\.3 s"):
            await pool.scale(1)
        assert time.monotonic() - begun < 30

    rig.run(rig.spec("import time\ntime.sleep(60)\n", startup_timeout=0.3), test)


def test_an_interpreter_that_is_not_there_is_said_so(rig):
    async def test(pool, events):
        with pytest.raises(WorkerStartError, match=r"could not be started.*/no/such/python"):
            await pool.scale(1)

    rig.run(rig.spec(python="/no/such/python"), test)


def test_response_timeout_ends_the_worker_and_only_the_head_batch_is_to_blame(rig):
    async def test(pool, events):
        await pool.scale(1)
        (slot,) = events.ready
        hangs, waits = events.batch(b"60"), events.batch(b"0")
        slot.send(hangs)
        slot.send(waits)
        await events.until(lambda: events.lost)
        ((_slot, started, unstarted, error),) = events.lost
        assert (started, unstarted) == ([hangs], [waits])
        assert "response_timeout is 0.5 s" in error.message
        await _restarted(pool, events)
        assert pool.restarts["response_timeout"] == 1

    rig.run(rig.spec(SLOW, response_timeout=0.5), test)


def test_a_batch_that_waits_behind_another_has_its_own_response_time(rig):
    async def test(pool, events):
        await pool.scale(1)
        (slot,) = events.ready
        slot.send(events.batch(b"1.2"))
        slot.send(events.batch(b"1.2"))
        await events.until(lambda: len(events.results) == 2)
        assert events.lost == []

    rig.run(rig.spec(SLOW, response_timeout=2.2), test)


def test_a_stream_that_goes_on_is_not_timed_out(rig):
    source = """
    import time
    def pieces():
        for i in range(6):
            time.sleep(0.4)
            yield f"{i}"
    def handle(data, context):
        return data and [pieces() for _ in data]
    """

    async def test(pool, events):
        await pool.scale(1)
        assert len(await events.ask(events.ready[0], b"")) == 1
        assert b"".join(data for _, _, data in events.chunks).startswith(b"01234")
        assert events.lost == []

    rig.run(rig.spec(source, response_timeout=2.0), test)


def test_a_frozen_idle_worker_is_replaced(rig):
    async def test(pool, events):
        await pool.scale(1)
        os.kill(pool.describe()[0].pid, signal.SIGSTOP)
        info = await _restarted(pool, events)
        assert "heartbeat lost" in info.last_exit
        assert pool.restarts["heartbeat_lost"] == 1

    rig.run(rig.spec(), test, heartbeat=0.1)


def test_a_handler_that_holds_the_interpreter_lock_is_left_to_compute(rig):
    source = """
    import ctypes
    def handle(data, context):
        if data:
            ctypes.PyDLL(None).usleep(900_000)  # PyDLL keeps the lock: not even the reader thread can run
        return data and [b"done" for _ in data]
    """

    async def test(pool, events):
        await pool.scale(1)
        assert await events.ask(events.ready[0], b"") == [b"done"]
        assert events.lost == []

    rig.run(rig.spec(source), test, heartbeat=0.05)


def test_a_worker_that_cannot_load_again_is_given_up_after_the_window(rig):
    source = """
    import os
    if os.path.exists("broken"):
        raise RuntimeError("the file is damaged now")
    def handle(data, context):
        if data:
            open("broken", "w").close()
            os._exit(1)
    """

    async def test(pool, events):
        await pool.scale(1)
        events.ready[0].send(events.batch(b""))
        await events.until(lambda: events.errors)
        (error,) = events.errors
        assert "the file is damaged now" in error.message
        assert pool.states() == {"FAILED": 1}
        assert pool.restarts["exit"] == 1
        assert pool.restarts["load_failed"] == 1, "the second back-off, of 1 s, still lies inside the window"

    rig.run(rig.spec(source, max_retry_timeout=2.0), test)


def test_a_worker_in_backoff_can_be_stopped(rig):
    source = """
    import os
    def handle(data, context):
        if data:
            os._exit(1)
    """

    async def test(pool, events):
        await pool.scale(1)
        events.ready[0].send(events.batch(b""))
        await events.until(lambda: pool.states()["BACKOFF"] == 1)
        begun = time.monotonic()
        await pool.scale(0)
        assert time.monotonic() - begun < 30
        assert pool.describe() == []

    rig.run(rig.spec(source), test, options=LoadOptions(first_retry_wait=60.0))


def test_closing_the_socket_alone_does_not_keep_a_worker(rig):
    source = """
    import os, time
    def handle(data, context):
        if data:
            import gc, socket
            gc.unfreeze()  # what was frozen is in no list
            for thing in gc.get_objects():
                if isinstance(thing, socket.socket):
                    thing.shutdown(socket.SHUT_RDWR)
            time.sleep(60)
    """

    async def test(pool, events):
        await pool.scale(1)
        batch = events.batch(b"")
        events.ready[0].send(batch)
        await events.until(lambda: events.lost)
        assert events.lost[0][1] == [batch]
        await _restarted(pool, events)

    rig.run(rig.spec(source), test)


def test_an_idle_worker_that_answers_its_pings_is_not_killed(rig):
    async def test(pool, events):
        await pool.scale(1)
        await asyncio.sleep(2)  # eight beats: 4 unanswered ones would have ended it
        (info,) = pool.describe()
        assert info.state == "READY"
        assert pool.restarts["heartbeat_lost"] == 0

    rig.run(rig.spec(), test, heartbeat=0.25)


def test_a_model_file_named_like_a_standard_module_does_not_break_the_worker(rig):
    (rig.directory / "queue.py").write_text("raise RuntimeError('only a model that imports queue meets this')")

    async def test(pool, events):
        await pool.scale(1)
        assert await events.ask(events.ready[0], b"x") == [b"x"]

    rig.run(rig.spec(), test)
