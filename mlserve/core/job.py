"""A request while it is in the server, and a batch of them.

The one property everything else leans on: *every submitted request gets exactly one ending*. ``Job.finish`` is the only
way to end one, and it is idempotent, so a cancel that races with a result, or a result that arrives from a worker that
was given up on, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlserve.core.messages import Chunk, InferenceRequest, InferenceResponse, Timings
from mlserve.errors import ServeError

if TYPE_CHECKING:
    from mlserve.core.pending import ModelQueue

QUEUED, SENT, DONE = 0, 1, 2


class Job:
    """One submitted request. ``arrived`` and ``deadline`` are on the queue's clock; a deadline of 0 is none."""

    __slots__ = (
        "arrived",
        "attempts",
        "batch",
        "deadline",
        "index",
        "on_chunk",
        "on_done",
        "queue",
        "request",
        "result",
        "sent",
        "state",
        "timings",
    )

    def __init__(
        self,
        queue: ModelQueue,
        request: InferenceRequest,
        on_done: Callable[[Job], object],
        on_chunk: Callable[[Job, Chunk], object] | None,
        arrived: float,
    ) -> None:
        self.queue = queue
        self.request = request
        self.on_done = on_done
        self.on_chunk = on_chunk
        self.arrived = arrived
        self.deadline = arrived + request.timeout if request.timeout else 0.0
        self.sent = 0.0
        self.state = QUEUED
        self.attempts = 0
        self.batch: Batch | None = None
        self.index = 0
        self.result: InferenceResponse | ServeError | None = None
        self.timings: Timings | None = None

    def finish(self, result: InferenceResponse | ServeError) -> bool:
        """End the job. Returns False, and does nothing, if it has ended before."""
        if self.state == DONE:
            return False
        self.state = DONE
        self.result = result
        self.on_done(self)
        return True


class Batch:
    """Jobs that go to a worker together. ``sent`` is on the queue's clock."""

    __slots__ = ("batch_id", "jobs", "sent")

    def __init__(self, batch_id: int, jobs: list[Job], sent: float) -> None:
        self.batch_id = batch_id
        self.jobs = jobs
        self.sent = sent

    def __len__(self) -> int:
        return len(self.jobs)
