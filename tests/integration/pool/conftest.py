"""Real worker processes under a pool, with a recorder in the queue's place."""

import asyncio
import itertools
import textwrap

import psutil
import pytest
from support.core_fakes import FakeClock

from mlserve.core.job import SENT, Batch, Job
from mlserve.core.messages import InferenceRequest, InferenceResponse, Part
from mlserve.core.metrics import ModelStats
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.core.pending import ModelQueue
from mlserve.engine.local import LoadOptions, LocalEngine

ECHO = """
def handle(data, context):
    return None if data is None else [row["body"] for row in data]
"""


def sent(request):
    """A job as far as an engine looks at it; not a fake, which the compiled build would not take."""
    queue = ModelQueue(ModelSpec(ModelKey("m", "1.0"), "/x", "h"), FakeClock(), ModelStats())
    job = Job()
    job.queue, job.request = queue, request
    job.state = SENT
    return job


class Recorder:
    """Notes what an engine tells the core; ``batch`` makes what the core would send."""

    def __init__(self):
        self.ready, self.closing, self.lost, self.chunks, self.errors, self.loads = [], [], [], [], [], []
        self.failed_loads = []
        self.results, self.reports = {}, {}
        self._ids = itertools.count(1)

    def batch(self, *bodies):
        items = [sent(InferenceRequest(f"r{i}", [Part("body", body)])) for i, body in enumerate(bodies)]
        return Batch(next(self._ids), items, 0.0)

    async def ask(self, slot, *bodies):
        """Send one batch and return its results: bodies as bytes, errors as they are."""
        batch = self.batch(*bodies)
        slot.send(batch)
        await self.until(lambda: batch.batch_id in self.results)
        return self.results[batch.batch_id]

    async def until(self, condition, timeout=20.0):
        async def poll():
            while not condition():
                await asyncio.sleep(0.002)

        await asyncio.wait_for(poll(), timeout)

    def slot_ready(self, slot):
        self.ready.append(slot)

    def worker_loaded(self, worker_id, seconds, metrics):
        self.loads.append((worker_id, seconds, metrics))

    def load_failed(self, metrics):
        self.failed_loads.append(metrics)

    def slot_closing(self, slot):
        assert slot not in self.closing, "a slot is closed once"
        self.closing.append(slot)

    def slot_lost(self, slot, started, unstarted, error):
        self.lost.append((slot, list(started), list(unstarted), error))

    def batch_done(self, slot, batch, results, report):
        assert batch.batch_id not in self.results, "a batch is answered once"
        self.results[batch.batch_id] = [
            bytes(result.body) if isinstance(result, InferenceResponse) else result for result in results
        ]
        self.reports[batch.batch_id] = report

    def item_chunk(self, batch, index, chunk):
        self.chunks.append((batch.batch_id, index, chunk.data))

    def gave_up(self, error):
        self.errors.append(error)


class Rig:
    """A model directory, an engine, and a check that nothing is left of either."""

    def __init__(self, directory):
        self.directory = directory
        self.events = Recorder()
        self.states = []

    def spec(self, source=ECHO, **settings):
        (self.directory / "model_handler.py").write_text(textwrap.dedent(source))
        return ModelSpec(ModelKey("m", "1.0"), str(self.directory), "model_handler:handle", **settings)

    def run(self, spec, test, runner=asyncio.run, **engine):
        """Call ``await test(pool, events)`` with a pool for ``spec``; afterwards no child may be left."""
        settings = {"gpu_ids": (), "cpus": 2.0, "options": LoadOptions(), **engine}

        async def main():
            local = LocalEngine(on_state=lambda key, info: self.states.append((info.worker_id, info.state)), **settings)
            self.local = local
            pool = local.open(spec, self.events)
            try:
                return await test(pool, self.events)
            finally:
                await local.close()

        before = set(psutil.Process().children(recursive=True))
        try:
            return runner(main())
        finally:
            assert set(psutil.Process().children(recursive=True)) == before, "a worker is left behind"


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)
