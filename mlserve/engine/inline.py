"""An engine without processes: a function of this process answers the batches, one after the other, on the event loop.

For tests of what lies above the engine, and for running a model under a debugger. It blocks the loop while it computes,
so it is no engine to serve with. It is given the function and loads no handler itself: that is the worker's part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from mlserve.core.job import Batch
from mlserve.core.lifecycle import WorkerState
from mlserve.core.messages import BatchReport, InferenceRequest, InferenceResponse
from mlserve.core.model import ModelSpec, SpareInfo, WorkerInfo
from mlserve.core.ports import SlotEvents
from mlserve.errors import ErrorKind, ServeError

Handle = Callable[[Sequence[InferenceRequest]], Sequence[InferenceResponse | ServeError]]


class InlineSlot:
    """A slot that computes in the loop's next turn."""

    def __init__(self, worker_id: int, handle: Handle, events: SlotEvents) -> None:
        self.worker_id = worker_id
        self.in_flight = 0
        self._handle = handle
        self._events = events
        self._done = asyncio.Event()

    def send(self, batch: Batch) -> None:
        """See ``core.ports.Slot``."""
        self.in_flight += 1
        asyncio.get_running_loop().call_soon(self._compute, batch)

    def cancel(self, batch: Batch, index: int) -> None:
        """Nothing to do: the item is computed with the others and its result dropped."""

    async def drained(self) -> None:
        """Return when no batch is in flight."""
        while self.in_flight:
            self._done.clear()
            await self._done.wait()

    def _compute(self, batch: Batch) -> None:
        started = monotonic()
        results: Sequence[InferenceResponse | ServeError]
        try:
            results = self._handle([job.request for job in batch.jobs])
            if len(results) != len(batch.jobs):
                raise ValueError(f"{len(results)} results for a batch of {len(batch.jobs)}")
        except Exception as error:
            failure = ServeError(f"Prediction failed: {error!r}", kind=ErrorKind.HANDLER_FAILED)
            results = [failure] * len(batch.jobs)
        self.in_flight -= 1
        self._events.batch_done(self, batch, results, BatchReport(inference=monotonic() - started))
        self._done.set()


class InlinePool:
    """See ``core.ports.Pool``."""

    def __init__(self, handle: Handle, events: SlotEvents) -> None:
        self._handle = handle
        self._events = events
        self._slots: list[InlineSlot] = []
        self._next_id = 9000

    @property
    def target(self) -> int:
        """See ``core.ports.Pool``."""
        return len(self._slots)

    @property
    def live(self) -> int:
        """See ``core.ports.Pool``."""
        return len(self._slots)

    async def scale(self, count: int) -> None:
        """See ``core.ports.Pool``."""
        while len(self._slots) < count:
            slot = InlineSlot(self._next_id, self._handle, self._events)
            self._next_id += 1
            self._slots.append(slot)
            self._events.slot_ready(slot)
        going = self._slots[count:]
        del self._slots[count:]
        for slot in going:
            self._events.slot_closing(slot)
        await asyncio.gather(*(slot.drained() for slot in going))

    async def stop(self, grace: float) -> None:
        """See ``core.ports.Pool``. Batches in flight are always answered first."""
        await self.scale(0)

    def describe(self) -> list[WorkerInfo]:
        """See ``core.ports.Pool``."""
        return [WorkerInfo(slot.worker_id, WorkerState.READY.value) for slot in self._slots]


class InlineEngine:
    """See ``core.ports.Engine``. ``handle`` gets the requests of a batch and returns one result for each, in order."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._pools: list[InlinePool] = []

    def open(self, spec: ModelSpec, events: SlotEvents) -> InlinePool:
        """See ``core.ports.Engine``."""
        pool = InlinePool(self._handle, events)
        self._pools.append(pool)
        return pool

    def spares(self) -> list[SpareInfo]:
        """See ``core.ports.Engine``."""
        return []

    async def close(self) -> None:
        """Empty every pool."""
        for pool in self._pools:
            await pool.stop(0)
        self._pools.clear()
