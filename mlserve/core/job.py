"""A request while it is in the server, and a batch of them.

The one property everything else leans on: *every submitted request gets exactly one ending*. ``Job.finish`` is the only
way to end one, and it is idempotent, so a cancel that races with a result, or a result that arrives from a worker that
was given up on, changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlserve.core.messages import Chunk, InferenceRequest, InferenceResponse, Timings
from mlserve.errors import ServeError

if TYPE_CHECKING:
    from mlserve.core.pending import ModelQueue
    from mlserve.core.ports import BatchReport, Cancellable, Slot

log = logging.getLogger(__name__)

QUEUED, SENT, DONE = 0, 1, 2


class Job:
    """One submitted request. Times are on the queue's clock, in seconds."""

    __slots__ = (
        "arrived",
        "attempts",
        "batch",
        "index",
        "on_chunk",
        "on_done",
        "queue",
        "report",
        "request",
        "result",
        "state",
        "streaming",
        "timer",
    )

    def __init__(
        self,
        queue: ModelQueue,
        request: InferenceRequest,
        on_done: Callable[[Job], object],
        on_chunk: Callable[[Job, Chunk], object],
        arrived: float,
    ) -> None:
        self.queue = queue
        self.request = request
        self.on_done = on_done
        self.on_chunk = on_chunk
        self.arrived = arrived
        self.state = QUEUED
        self.attempts = 0  # workers that died with this request
        self.streaming = False  # a piece of the answer has left: it cannot be computed again
        self.batch: Batch | None = None
        self.index = 0
        self.timer: Cancellable | None = None
        self.result: InferenceResponse | ServeError | None = None
        self.report: BatchReport | None = None

    def finish(self, result: InferenceResponse | ServeError) -> bool:
        """End the job. Returns False, and does nothing, if it has ended before."""
        if self.state == DONE:
            return False
        self.state = DONE
        self.result = result
        if self.timer is not None:
            self.timer.cancel()
        try:
            self.on_done(self)
        except Exception:  # a protocol's fault must not take its batch mates' answers with it
            log.exception("request %s: answering failed", self.request.request_id)
        return True

    @property
    def alone(self) -> bool:
        """Whether nothing may be computed together with it: it asked for that, or a worker has died with it."""
        return self.request.alone or self.attempts > 0

    @property
    def queued_for(self) -> float:
        """Seconds from arrival to being sent to a worker; 0 if it never was."""
        return self.batch.sent - self.arrived if self.batch is not None else 0.0

    @property
    def timings(self) -> Timings | None:
        """Where the time went, once a worker has answered. Built on demand: most requests never ask."""
        report, batch = self.report, self.batch
        if report is None or batch is None:
            return None
        return Timings(
            self.queued_for + report.waited,
            report.transfer,
            report.preprocess,
            report.inference,
            report.postprocess,
            len(batch.jobs),
        )


class Batch:
    """Jobs that go to ``slot`` together. ``sent`` is on the queue's clock."""

    __slots__ = ("batch_id", "jobs", "sent", "slot")

    def __init__(self, batch_id: int, jobs: list[Job], sent: float, slot: Slot | None = None) -> None:
        self.batch_id = batch_id
        self.jobs = jobs
        self.sent = sent
        self.slot = slot

    def __len__(self) -> int:
        return len(self.jobs)
