"""A worker of a torch model takes the spare process; what a spare could not do right starts as ever.

One test has the real torch. The others have a package that is called onnxruntime and takes no time to import.
"""

import asyncio
import json
import os
import signal

import psutil
import pytest

from mlserve.engine.local import engine as local_engine
from mlserve.engine.local import spares

TORCH = """
import json, os, sys

import numpy
import torch

def handle(data, context):
    if data is None:
        return None
    seen = {
        "pid": os.getpid(),
        "threads": torch.get_num_threads(),
        "variable": os.environ["OMP_NUM_THREADS"],
        "visible": os.environ["CUDA_VISIBLE_DEVICES"],
        "cuda": torch.cuda.is_initialized(),
        "sum": float(torch.ones(3).sum()),
    }
    print("printed by the worker")
    return [json.dumps(seen)] * len(data)
"""
LIGHT = """
import os, onnxruntime

def handle(data, context):
    return data and [f"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']} {onnxruntime.seen}"] * len(data)
"""


@pytest.fixture(autouse=True)
def light_package(monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    (folder / "onnxruntime").mkdir()
    (folder / "onnxruntime" / "__init__.py").write_text(
        "import os, tqdm_of_it\nseen = os.environ['CUDA_VISIBLE_DEVICES']"
    )
    (folder / "tqdm_of_it.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(spares, "QUIET", 0.05)


async def warm(local, but=()):
    """The pid of a spare that is warm and not one of ``but``."""
    for _ in range(3000):
        for info in local.spares():
            if info.state == "warm" and info.pid not in but:
                return info.pid
        await asyncio.sleep(0.02)
    raise AssertionError(f"no spare is warm: {local.spares()}")


def test_a_worker_of_a_torch_model_is_as_if_started_for_it(rig):
    """Scale-up and recovery take it; what is set late (threads, log) is as in a worker that was started cold."""

    async def test(pool, events):
        await pool.scale(1)
        cold = json.loads((await events.ask(events.ready[0], b""))[0])
        assert (cold["threads"], cold["variable"]) == (2, "2")
        spare = await warm(rig.local)
        (info,) = rig.local.spares()
        assert info.packages == ("numpy", "torch")
        assert info.memory_bytes > info.proportional_bytes > 50 << 20
        assert not any("libcuda" in entry.path for entry in psutil.Process(spare).memory_maps())
        await pool.scale(2)
        seen = json.loads((await events.ask(events.ready[1], b""))[0])
        assert seen == {"pid": spare, "threads": 1, "variable": "1", "visible": "", "cuda": False, "sum": 3.0}
        await events.until(lambda: "printed by the worker" in pool.describe()[1].log_tail)

    rig.run(rig.spec(TORCH), test, spares=1)


def test_each_death_finds_a_new_spare_and_that_of_a_spare_is_nobodys_error(rig):
    async def test(pool, events):
        await pool.scale(1)
        pids = [pool.describe()[0].pid]
        for _ in range(2):
            spare = await warm(rig.local, but=pids)
            os.kill(pids[-1], signal.SIGKILL)
            count = len(events.ready)
            await events.until(lambda count=count: len(events.ready) > count)
            answer = (await events.ask(events.ready[-1], b""))[0]
            # It was imported without a GPU in sight, and the worker has the one that it was given.
            assert answer == f"{spare} 7 ".encode()
            pids.append(spare)
        dying = await warm(rig.local, but=pids)
        os.kill(dying, signal.SIGKILL)
        await warm(rig.local, but=[*pids, dying])
        assert len(events.lost) == 2, "only the two workers"

    rig.run(rig.spec(LIGHT), test, spares=1, gpu_ids=[7])


def test_a_model_with_a_module_that_the_spare_has_from_elsewhere_starts_cold(rig):
    (rig.directory / "tqdm_of_it.py").write_text("")

    async def test(pool, events):
        await pool.scale(1)
        spare = await warm(rig.local)
        await pool.scale(2)
        assert spare not in [worker.pid for worker in pool.describe()]

    rig.run(rig.spec(LIGHT), test, spares=1)


@pytest.mark.parametrize("why", ["nothing heavy", "sets variables", "own command", "memory"])
def test_no_spare_is_kept(rig, monkeypatch, why):
    source = {
        "nothing heavy": LIGHT.replace(", onnxruntime", "").replace("onnxruntime.seen", "os.name"),
        "sets variables": ("import os\nos.environ['OMP_SCHEDULE'] = 'static'" + LIGHT),
    }.get(why, LIGHT)
    engine = {}
    if why == "own command":
        engine["command"] = lambda spec, options: [*local_engine.SPARE_COMMAND[:1], "-B", "-m", "mlserve.worker"]
    if why == "memory":
        monkeypatch.setattr(local_engine, "Spares", lambda *given: spares.Spares(*given, available=lambda: 300 << 20))

    async def test(pool, events):
        await pool.scale(1)
        await asyncio.sleep(0.2)
        assert rig.local.spares() == []

    rig.run(rig.spec(source), test, spares=1, **engine)


def test_a_spare_ends_with_the_last_model_that_it_is_for(rig):
    async def test(pool, events):
        await pool.scale(1)
        await warm(rig.local)
        await pool.stop(5)
        await events.until(lambda: rig.local.spares() == [])

    rig.run(rig.spec(LIGHT), test, spares=1)
