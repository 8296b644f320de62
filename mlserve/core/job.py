"""A request while it is in the server, and a batch of them.

The one property everything else leans on: *every submitted request gets exactly one ending*. ``Job.finish`` is the only
way to end one, and it is idempotent, so a cancel that races with a result, or a result that arrives from a worker that
was given up on, changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mlserve.core.messages import BatchReport, Chunk, InferenceRequest, InferenceResponse, Timings
from mlserve.errors import ServeError

if TYPE_CHECKING:
    from mlserve.core.pending import ModelQueue
    from mlserve.core.ports import Cancellable, Slot

log = logging.getLogger(__name__)

QUEUED: Final = 0
SENT: Final = 1
DONE: Final = 2
# mypyc 2.4 leaves an attribute without its default where that reads None and two types or more are beside it.
NONE_YET: Final = None


class Job:
    """One submitted request. Times are on the queue's clock, in seconds. Who waits for it derives from this class.

    When it ends it lets go of its batch, so that no request leaves a cycle behind for the garbage collector. What most
    requests never set has its default in the class: that is cheaper than filling slots.
    """

    request: InferenceRequest
    queue: ModelQueue  # this and ``arrived`` are set by the queue that takes it
    arrived = 0.0
    state: int = QUEUED
    submitted = False
    attempts = 0  # workers that died with this request
    streaming = False  # a piece of the answer has left: it cannot be computed again
    batch: Batch | None = None
    index = 0
    timer: Cancellable | None = None
    result: InferenceResponse | ServeError | None = NONE_YET
    report: BatchReport | None = None
    sent = 0.0  # to the worker that has it, or answered it; 0 while it is queued
    ended = 0.0

    def on_done(self) -> None:
        """It has ended, with ``result``; called once."""

    def on_chunk(self, chunk: Chunk) -> None:
        """A piece of the answer, before the end."""

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
        try:
            self.on_done()
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


class CallbackJob(Job):
    """A job for which two functions are called, of which it lets go at the end: they may well lead back to it."""

    _done: Callable[[Job], object] | None
    _chunk: Callable[[Job, Chunk], object] | None

    def __init__(
        self, request: InferenceRequest, done: Callable[[Job], object], chunk: Callable[[Job, Chunk], object]
    ) -> None:
        self.request = request
        self._done = done
        self._chunk = chunk

    def on_done(self) -> None:
        """See :class:`Job`."""
        tell, self._done, self._chunk = self._done, None, None
        if tell is not None:
            tell(self)

    def on_chunk(self, chunk: Chunk) -> None:
        """See :class:`Job`."""
        if self._chunk is not None:
            self._chunk(self, chunk)


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
