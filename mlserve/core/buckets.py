"""The queue that batches requests of similar size, for models that pad a batch to its longest item.

The size of a request is that of its body: of texts it is nearly proportional to their tokens, and nobody has to parse
anything to know it. Whenever a batch is cut, the requests that wait longest (8 batches of them at most) are divided
into the batches that are cheapest for all of them together, and the one with the oldest request is sent. So none is
passed over: a request at place p of the queue is answered with the p-th batch at the latest.

What is cheapest depends on what a batch costs beside its items: with much of it, few large batches are, with little,
many small ones with no padding. That is learned from the batches that were answered: ``seconds = a*items*longest + b``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mlserve.core.costs import line
from mlserve.core.job import DONE, Batch, Job
from mlserve.core.messages import BatchReport, InferenceResponse
from mlserve.core.metrics import ModelStats
from mlserve.core.model import ModelSpec
from mlserve.core.pending import ModelQueue
from mlserve.core.ports import Clock, Slot
from mlserve.errors import ServeError
from mlserve.grouping import groups

LOOK = 8  # batches: to divide 64 requests takes 0.1 ms
SEEN = 32  # last batches that the costs are learned from
ENOUGH = 8
TRAVEL = 0.0002  # seconds that a batch costs outside of the handler
UNKNOWN = 1e12  # bytes that a batch costs by itself, while nothing is known: as few batches as can be


class BucketQueue(ModelQueue):
    """See the module."""

    def __init__(self, spec: ModelSpec, clock: Clock, stats: ModelStats) -> None:
        super().__init__(spec, clock, stats)
        self.call = UNKNOWN  # what a batch costs by itself, in bytes of its items
        self._points: deque[tuple[float, float]] = deque(maxlen=SEEN)
        self._since = 0

    def batch_done(
        self, slot: Slot, batch: Batch, results: Sequence[InferenceResponse | ServeError], report: BatchReport
    ) -> None:
        """See ``SlotEvents``."""
        volume = len(batch.jobs) * max(job.request.size for job in batch.jobs)
        self._points.append((float(volume), report.preprocess + report.inference + report.postprocess))
        self._since += 1
        if self._since >= ENOUGH:
            self._since = 0
            each, fixed = line(self._points)
            self.call = (fixed + TRAVEL) / each if each else UNKNOWN
        super().batch_done(slot, batch, results, report)

    def _send(self, slot: Slot, take: int, now: float) -> None:
        if self._jobs.first().alone:
            super()._send(slot, take, now)
            return
        waiting = self._oldest(LOOK * self.spec.batch_size)
        sizes = [job.request.size for job in waiting]
        chosen = next(group for group in groups(sizes, self.call, take) if 0 in group)
        together = set(chosen)
        self._jobs.put_back([job for at, job in enumerate(waiting) if at not in together])
        self._dispatch(slot, [waiting[at] for at in sorted(chosen)], now)

    def _oldest(self, most: int) -> list[Job]:
        """Take the oldest requests out of the queue, up to one that is to be alone."""
        jobs = self._jobs
        found: list[Job] = []
        while jobs and len(found) < most and not jobs.first().alone:
            job = jobs.popleft()
            if job.state != DONE:
                found.append(job)
        return found
