"""A clock that is advanced by hand and workers that answer when told: the core without an event loop."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from mlserve.core import queues
from mlserve.core.job import Batch, Job
from mlserve.core.messages import BatchReport, InferenceRequest, InferenceResponse, Part
from mlserve.core.metrics import ModelStats
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.core.pending import ModelQueue
from mlserve.core.sequence import SEQUENCE_HEADERS
from mlserve.errors import ErrorKind, ServeError


class Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """Time stands still until :meth:`advance`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._soon: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._later: list[tuple[float, int, Timer, Callable[..., object], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *args: Any) -> object:
        self._soon.append((callback, args))
        return None

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        timer = Timer()
        heapq.heappush(self._later, (self.now + delay, next(self._order), timer, callback, args))
        return timer

    def turn(self) -> None:
        """Run what was to run soon."""
        while self._soon:
            callback, args = self._soon.pop(0)
            callback(*args)

    def advance(self, seconds: float) -> None:
        """Let time pass, with every timer on the way."""
        end = self.now + seconds
        self.turn()
        while self._later and self._later[0][0] <= end:
            self.now, _, timer, callback, args = heapq.heappop(self._later)
            if not timer.cancelled:
                callback(*args)
            self.turn()
        self.now = end


class FakeSlot:
    """A worker that keeps its batches until it is told to answer."""

    def __init__(self, queue: ModelQueue, worker_id: int = 9000) -> None:
        self.queue = queue
        self.worker_id = worker_id
        self.batches: list[Batch] = []
        self.cancelled: list[tuple[int, int]] = []

    @property
    def in_flight(self) -> int:
        return len(self.batches)

    def send(self, batch: Batch) -> None:
        self.batches.append(batch)

    def cancel(self, batch: Batch, index: int) -> None:
        self.cancelled.append((batch.batch_id, index))

    def answer(
        self, took: float = 0.0, which: int = 0, headers: Sequence[tuple[str, str]] = (), transfer: float = 0.0
    ) -> Batch:
        """Finish a batch, the oldest by default, after ``took`` seconds and ``transfer`` on its way.

        Each item's answer is its request id.
        """
        batch = self.batches.pop(which)
        results: list[InferenceResponse | ServeError] = [
            InferenceResponse(job.request.request_id.encode(), headers=headers) for job in batch.jobs
        ]
        self.queue.batch_done(self, batch, results, BatchReport(transfer, inference=took))
        return batch

    def die(self) -> None:
        """End as a killed worker does: the oldest batch was being computed."""
        batches, self.batches = self.batches, []
        error = ServeError("killed", kind=ErrorKind.WORKER_DIED)
        started = len(batches) if self.queue.spec.concurrent else 1
        self.queue.slot_lost(self, batches[:started], batches[started:], error)


class Endings:
    """Collects how jobs end, and refuses a second ending."""

    def __init__(self) -> None:
        self.results: dict[str, InferenceResponse | ServeError] = {}

    def __call__(self, job: Job) -> None:
        request_id = job.request.request_id
        assert request_id not in self.results, f"{request_id} ended twice"
        assert job.result is not None
        self.results[request_id] = job.result

    def kind(self, request_id: str) -> str:
        result = self.results[request_id]
        return "ok" if isinstance(result, InferenceResponse) else result.kind.value


def make_queue(clock: FakeClock, **spec: Any) -> ModelQueue:
    defaults: dict[str, Any] = {"batch_size": 4, "max_batch_delay_ms": 10.0, "job_queue_size": 100}
    made = ModelSpec(ModelKey("m", "1"), "/x", "h", **{**defaults, **spec})
    return queues.make_queue(made, clock, ModelStats(), SEQUENCE_HEADERS)


def put(
    queue: ModelQueue,
    request_id: str,
    endings: Endings,
    timeout: float = 0.0,
    sequence: str = "",
    alone: bool = False,
    body: bytes = b"x",
) -> Job:
    request = InferenceRequest(
        request_id, [Part("body", body)], timeout=timeout, sequence_id=sequence, alone=alone, url_path=""
    )
    return queue.put(request, endings, lambda job, chunk: None)
