"""The queue of a model whose workers have many requests side by side: continuous batching, asynchronous handlers.

Each request is a batch of its own, so that it is answered, streamed and cancelled by itself, and leaves as soon as a
worker has room: nobody waits for a batch to fill, because a request can join what runs at any step.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlserve.core.job import DONE, Batch, Job
from mlserve.core.messages import BatchReport, InferenceResponse
from mlserve.core.metrics import ModelStats
from mlserve.core.model import ModelSpec
from mlserve.core.pending import ModelQueue
from mlserve.core.ports import Clock, Slot
from mlserve.errors import ServeError

ASYNC_LIMIT = 1000  # vLLM runs 256 at a time by default: it shall see those behind; a stuck handler gets no more


def capacity(spec: ModelSpec) -> int:
    """How many requests one worker of a ``concurrent`` model may have.

    A step of continuous batching takes ``batch_size`` requests, twice as many with sequences: one may run while the
    next of the same sequence, which may be there to end it, is taken.
    """
    if spec.continuous_batching:
        return spec.batch_size * 2 if spec.sequence_batching else spec.batch_size
    return max(ASYNC_LIMIT, spec.job_queue_size)


class ItemQueue(ModelQueue):
    """A :class:`ModelQueue` that sends requests one by one, to the worker that has the fewest."""

    def __init__(self, spec: ModelSpec, clock: Clock, stats: ModelStats) -> None:
        super().__init__(spec, clock, stats)
        self._capacity = capacity(spec)
        self._reserved: set[Slot] = set()  # they have one request that nothing may run beside

    def slot_closing(self, slot: Slot) -> None:
        """See ``SlotEvents``."""
        self._reserved.discard(slot)
        super().slot_closing(slot)

    def batch_done(
        self, slot: Slot, batch: Batch, results: Sequence[InferenceResponse | ServeError], report: BatchReport
    ) -> None:
        """See ``SlotEvents``."""
        self._reserved.discard(slot)
        super().batch_done(slot, batch, results, report)

    def _tickets(self) -> int:
        return sum(max(0, self._capacity - slot.in_flight) for slot in self.slots)

    def _pump(self) -> None:
        jobs = self._jobs
        while self.depth and self.slots:
            while jobs.first().state == DONE:
                jobs.popleft()
            slot = self._slot_for(jobs.first())
            if slot is None:
                return
            self._dispatch(slot, [jobs.popleft()], self._clock.time())

    def _slot_for(self, job: Job) -> Slot | None:
        exclusive = job.alone and self.spec.continuous_batching
        limit = 1 if exclusive else self._capacity
        free = [slot for slot in self.slots if slot.in_flight < limit and slot not in self._reserved]
        if not free:
            return None
        slot = min(free, key=_load)
        if exclusive:
            self._reserved.add(slot)
        return slot


def _load(slot: Slot) -> int:
    return slot.in_flight
