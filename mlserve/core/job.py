"""A request while it is in the server, and a batch of them.

The one property everything else leans on: *every submitted request gets exactly one ending*. ``Job.finish`` is the only
way to end one, and it is idempotent, so a cancel that races with a result, or a result that arrives from a worker that
was given up on, changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mlserve.core.messages import Chunk, InferenceRequest, InferenceResponse, Timings
from mlserve.errors import ServeError

if TYPE_CHECKING:
    from mlserve.core.pending import ModelQueue
    from mlserve.core.ports import BatchReport, Cancellable, Slot

log = logging.getLogger(__name__)

QUEUED: Final = 0
SENT: Final = 1
DONE: Final = 2


class Job:
    """One submitted request. Times are on the queue's clock, in seconds.

    When it ends it lets go of its batch and of whoever waits for it, so that no request leaves a cycle behind for the
    garbage collector. What most requests never set has its default in the class: that is cheaper than filling slots.
    """

    state: int = QUEUED
    attempts = 0  # workers that died with this request
    streaming = False  # a piece of the answer has left: it cannot be computed again
    batch: Batch | None = None
    index = 0
    timer: Cancellable | None = None
    result: InferenceResponse | ServeError | None = None
    report: BatchReport | None = None
    sent = 0.0  # to the worker that has it, or answered it; 0 while it is queued
    ended = 0.0

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

    def finish(self, result: InferenceResponse | ServeError, now: float = 0.0) -> bool:
        """End the job. Returns False, and does nothing, if it has ended before."""
        if self.state == DONE:
            return False
        self.state = DONE
        self.result = result
        self.ended = now
        self.batch = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        tell, self.on_done, self.on_chunk = self.on_done, _nobody, _nobody
        try:
            tell(self)
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
        return self.sent - self.arrived if self.sent else 0.0

    @property
    def timings(self) -> Timings | None:
        """Where the time went, once a worker has answered. Built on demand: most requests never ask."""
        report = self.report
        if report is None:
            return None
        return Timings(
            self.queued_for + report.waited,
            report.transfer,
            report.preprocess,
            report.inference,
            report.postprocess,
            report.batch_size,
        )


def _nobody(*_: object) -> None:
    """Nobody waits any more."""


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
