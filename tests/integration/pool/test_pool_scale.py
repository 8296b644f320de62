"""Workers come, answer, and go."""

import asyncio
import os
import time

import psutil
import pytest
import uvloop

from mlserve.core.job import DONE
from mlserve.errors import ServeError


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_answers_go_back_to_the_items_that_asked(rig, runner):
    async def test(pool, events):
        await pool.scale(2)
        assert [info.state for info in pool.describe()] == ["READY", "READY"]
        for slot in events.ready:
            assert await events.ask(slot, b"a", b"", b"c" * 1000) == [b"a", b"", b"c" * 1000]
            assert slot.in_flight == 0
        for report in events.reports.values():
            assert 0 < report.transfer < 5
            assert report.inference >= 0
        await pool.stop(5)
        assert pool.describe() == []
        assert events.lost == []

    rig.run(rig.spec(), test, runner)
    assert [state for worker, state in rig.states if worker == 9000] == ["LOADING", "READY", "DRAINING", "STOPPED"]


def test_large_bodies_cross_unharmed_with_and_without_room_in_the_arena(rig):
    async def test(pool, events):
        await pool.scale(1)
        bodies = [os.urandom(700_000) for _ in range(4)]
        for _ in range(4):  # four rounds: what the arena holds is given back each time
            assert await events.ask(events.ready[0], *bodies) == bodies

    rig.run(rig.spec(), test, arena_size=2 << 20)
    rig.events.__init__()
    rig.run(rig.spec(), test, arena_size=0)


def test_two_batches_in_flight_are_answered_in_order_and_overlap(rig):
    async def test(pool, events):
        await pool.scale(1)
        (slot,) = events.ready
        first, second = events.batch(b"1"), events.batch(b"2")
        slot.send(first)
        slot.send(second)
        assert slot.in_flight == 2
        await events.until(lambda: len(events.results) == 2)
        assert list(events.results) == [first.batch_id, second.batch_id]

    rig.run(rig.spec(), test)


def test_each_worker_sees_only_the_gpu_that_describe_shows(rig):
    source = """
    import os
    def handle(data, context):
        visible, order = os.environ["CUDA_VISIBLE_DEVICES"], os.environ.get("CUDA_DEVICE_ORDER")
        return data and [f"{visible} {context.system_properties['gpu_id']} {order}"] * len(data)
    """

    async def test(pool, events):
        await pool.scale(3)
        seen = {slot.worker_id: (await events.ask(slot, b""))[0] for slot in events.ready}
        shown = {info.worker_id: (info.gpu_id, info.device) for info in pool.describe()}
        assert seen == {9000: b"5 0 PCI_BUS_ID", 9001: b"2 0 PCI_BUS_ID", 9002: b"5 0 PCI_BUS_ID"}
        assert shown == {9000: (5, "cuda:5"), 9001: (2, "cuda:2"), 9002: (5, "cuda:5")}

    rig.run(rig.spec(source), test, gpu_ids=[5, 2])


def test_a_model_for_the_cpu_sees_no_gpu(rig):
    source = """
    import os
    def handle(data, context):
        return data and [f"[{os.environ['CUDA_VISIBLE_DEVICES']}] {context.system_properties['gpu_id']}"] * len(data)
    """

    async def test(pool, events):
        await pool.scale(1)
        assert await events.ask(events.ready[0], b"") == [b"[] None"]
        assert pool.describe()[0].device == "cpu"

    rig.run(rig.spec(source, device_type="cpu"), test, gpu_ids=[5, 2])


def test_the_model_directory_is_where_the_worker_is_and_looks_first(rig):
    source = """
    import os, sys
    import settings_of_mine
    def handle(data, context):
        return data and [f"{os.getcwd()} {settings_of_mine.VALUE} {os.environ['OMP_NUM_THREADS']}"] * len(data)
    """
    (rig.directory / "settings_of_mine.py").write_text("VALUE = 7\n")

    async def test(pool, events):
        await pool.scale(1)
        assert await events.ask(events.ready[0], b"") == [f"{rig.directory} 7 3".encode()]

    rig.run(rig.spec(source, threads_per_worker=3), test)


def test_scaling_down_stops_the_newest_and_answers_what_it_had(rig):
    source = """
    import time
    def handle(data, context):
        time.sleep(0.3 if data else 0)
        return data and [row["body"] for row in data]
    """

    async def test(pool, events):
        await pool.scale(3)
        newest = max(events.ready, key=lambda slot: slot.worker_id)
        batch = events.batch(b"late")
        newest.send(batch)
        await pool.scale(1)
        assert events.results[batch.batch_id] == [b"late"]
        assert [info.worker_id for info in pool.describe()] == [9000]
        assert {slot.worker_id for slot in events.closing} == {9001, 9002}
        assert events.lost == []
        await pool.scale(2)
        assert [info.worker_id for info in pool.describe()] == [9000, 9003], "ids are never used twice"

    rig.run(rig.spec(source), test)


def test_concurrent_scales_end_with_the_last_count_and_no_extra_worker(rig):
    async def test(pool, events):
        await asyncio.gather(pool.scale(2), pool.scale(1), pool.scale(2))
        assert pool.target == 2
        assert [info.state for info in pool.describe()] == ["READY", "READY"]
        assert len(psutil.Process().children()) == 2

    rig.run(rig.spec(), test)


def test_stop_with_a_grace_period_kills_what_does_not_end(rig):
    source = """
    import time
    def handle(data, context):
        time.sleep(60 if data else 0)
    """

    async def test(pool, events):
        await pool.scale(1)
        batch = events.batch(b"never")
        events.ready[0].send(batch)
        begun = time.monotonic()
        await pool.stop(0.2)
        assert time.monotonic() - begun < 25
        ((_slot, started, unstarted, error),) = events.lost
        assert (started, unstarted) == ([batch], [])
        assert "stopped with requests in flight" in error.message

    rig.run(rig.spec(source), test)


def test_work_that_nobody_waits_for_does_not_hold_up_a_stop(rig):
    source = """
    import time
    def handle(data, context):
        time.sleep(60 if data else 0)
    """

    async def test(pool, events):
        await pool.scale(2)
        for slot, before in zip(events.ready, (True, False), strict=True):
            batch = events.batch(b"never")
            slot.send(batch)

            def give_up(slot=slot, batch=batch):
                batch.jobs[0].state = DONE
                slot.cancel(batch, 0)

            if before:
                give_up()
            else:  # while it is being stopped
                asyncio.get_running_loop().call_later(0.3, give_up)
        begun = time.monotonic()
        await pool.stop(60)
        assert 0.3 < time.monotonic() - begun < 25

    rig.run(rig.spec(source), test)


def test_stop_while_loading_does_not_wait_for_the_load(rig):
    async def test(pool, events):
        scaling = asyncio.create_task(pool.scale(1))
        await events.until(lambda: pool.states()["LOADING"] == 1)
        begun = time.monotonic()
        await pool.stop(30)
        assert time.monotonic() - begun < 25
        with pytest.raises(ServeError, match="stopped while it was loading"):
            await scaling
        with pytest.raises(ServeError, match="being unloaded"):
            await pool.scale(1)

    rig.run(rig.spec("import time\ntime.sleep(60)\n"), test)


def test_what_a_handler_started_ends_with_its_worker(rig):
    source = """
    import subprocess, sys
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    def handle(data, context):
        return data and [str(child.pid)] * len(data)
    """

    async def test(pool, events):
        await pool.scale(1)
        ((pid,),) = [await events.ask(events.ready[0], b"")]
        assert psutil.pid_exists(int(pid))
        await pool.stop(5)
        await events.until(lambda: not _runs(int(pid)))

    rig.run(rig.spec(source), test)


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_worker_prints_is_logged_and_kept(rig, caplog):
    source = r"""
    import logging, sys
    def handle(data, context):
        if data:
            print("on stdout")
            print("x" * 100_000 + "\nafter the long line", file=sys.stderr)
            for i in range(60):
                print("line", i)
            logging.getLogger("mine").error("by logging")
        return data and [b""]
    """
    caplog.set_level("INFO", logger="mlserve.worker")

    async def test(pool, events):
        await pool.scale(1)
        await events.ask(events.ready[0], b"")
        await events.until(lambda: "line 59" in pool.describe()[0].log_tail)
        tail = pool.describe()[0].log_tail
        assert len(tail) == 50
        await events.until(lambda: any("by logging" in record.getMessage() for record in caplog.records))

    rig.run(rig.spec(source), test)
    found = {record.getMessage(): record for record in caplog.records}
    assert found["m:1.0 9000 | on stdout"].levelname == "INFO"
    assert found["m:1.0 9000 | after the long line"].levelname == "WARNING"
    assert found["m:1.0 9000 | mine: by logging"].levelname == "ERROR"
    assert max(map(len, found)) < 9000, "a long line is cut"
