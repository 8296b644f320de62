"""A worker of several processes under torchrun: one place in the pool, every rank at work, none left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile

import psutil
import pytest

from mlserve.engine.local import LoadOptions
from mlserve.errors import WorkerStartError

pytest.importorskip("torch")

RANKS = {"parallel_type": "tp", "torchrun": {"nproc-per-node": 2}}
# Each rank needs the other's number to answer, so a batch that does not reach both is never answered.
SUMS = """
    import json, os
    import torch
    import torch.distributed as dist

    def handle(data, context):
        if data is None:
            dist.init_process_group("gloo")
            return None
        assert context.system_properties["gpu_id"] is None
        total = torch.tensor([float(os.environ["RANK"]) + 1.0])
        dist.all_reduce(total)
        return [json.dumps([int(os.environ["RANK"]), total.item(), os.getpid()]) for _ in data]
"""


def test_a_tensor_parallel_batch_reaches_every_rank_and_is_answered_once_by_the_first(rig):
    async def test(pool, events):
        await pool.scale(1)
        assert pool.describe()[0].worker_id == 29500
        (answer,) = await events.ask(events.ready[0], b"x")
        rank, total, pid = json.loads(answer)
        assert (rank, total) == (0, 3.0)
        assert [json.loads(each)[1] for each in await events.ask(events.ready[0], b"x", b"y")] == [3.0, 3.0]
        os.kill(pid, signal.SIGKILL)
        await events.until(lambda: events.lost)
        await events.until(lambda: len(events.ready) > 1, timeout=60.0)
        assert json.loads((await events.ask(events.ready[1], b"x"))[0])[1] == 3.0

    rig.run(rig.spec(SUMS, startup_timeout=60.0, **RANKS), test)


def test_pipeline_parallel_batches_go_to_the_first_rank_only(rig):
    source = """
        import os
        def handle(data, context):
            if data is None:
                return None
            assert os.environ["RANK"] == "0"
            return [os.environ["WORLD_SIZE"] for _ in data]
    """

    async def test(pool, events):
        await pool.scale(1)
        assert await events.ask(events.ready[0], b"x") == [b"2"]

    rig.run(rig.spec(source, startup_timeout=60.0, **{**RANKS, "parallel_type": "pp"}), test)


def test_a_rank_that_cannot_load_fails_the_whole_worker_with_its_traceback(rig):
    source = """
        import os
        def handle(data, context):
            if os.environ["RANK"] == "1":
                raise RuntimeError("no weights for the second rank")
    """

    async def test(pool, events):
        with pytest.raises(WorkerStartError, match="no weights for the second rank"):
            await pool.scale(1)

    rig.run(rig.spec(source, startup_timeout=60.0, **RANKS), test)


@pytest.mark.parametrize("program", ["mlserve.worker.group", "torch.distributed.run"])
def test_what_is_between_a_group_and_the_server_takes_the_ranks_along(rig, tmp_path, monkeypatch, program):
    """Even ranks that hold the interpreter lock and cannot see their sockets close; torchrun gives each a session."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    source = """
        import ctypes
        def handle(data, context):
            if data:
                ctypes.PyDLL(None).sleep(300)
    """

    async def test(pool, events):
        await pool.scale(1)
        group = psutil.Process().children(recursive=True)
        (between,) = [process for process in group if process.cmdline()[2:3] == [program]]
        events.ready[0].send(events.batch(b"x"))
        await asyncio.sleep(0.2)
        between.kill()
        await events.until(lambda: events.lost)
        assert (await asyncio.to_thread(psutil.wait_procs, group, 10))[1] == []

    rig.run(rig.spec(source, startup_timeout=60.0, max_retry_timeout=0.0, **RANKS), test)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("mlserve-group")] == []


def test_a_worker_under_the_cpu_launcher_serves_like_any_other(rig):
    async def test(pool, events):
        await pool.scale(1)
        assert await events.ask(events.ready[0], b"x" * 200_000) == [b"x" * 200_000]

    options = LoadOptions(cpu_launcher=True, cpu_launcher_args="--disable-numactl --disable-taskset")
    rig.run(rig.spec(startup_timeout=60.0), test, options=options)
