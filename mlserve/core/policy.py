"""Batching policies: pure decisions, no clock and no event loop.

A policy looks at a :class:`View` of one model's queue and says how many requests to send now, or how long to wait
before asking again. It is asked whenever something changes (a request came, a batch was answered, a worker came or
went, the wait ran out), so it never has to remember what it said. The shape of the answer, "0 = go, else wait this
long", is that of Triton's ``GetDynamicBatch``. A policy that learns is told about batches beside that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from mlserve.native import mypyc_attr


@mypyc_attr(acyclic=True)
class View:
    """A model's queue at one moment. ``age`` is how long the oldest request has been there for a worker that waits to
    collect a batch, in seconds: time in which all workers were busy does not count.

    ``idle`` counts workers that could begin with a batch at once; ``room`` those that compute as many as they do at a
    time and could hold one more; ``workers`` all of them. ``free`` is how many batches the worker that is to get the
    next one could begin at once: its ``handler_threads`` less what it computes.
    Of the batch that was answered last: ``took`` is how long the handler had it and ``quiet`` how long ago its answer
    came, in seconds; ``expected`` is how many requests there would be if all its clients asked again.

    ``bulk`` is how many requests like the oldest are worth putting into a batch where batches take longer to carry than
    to compute; 0 where they do not.

    ``oldest`` is how long ago the oldest request came, in seconds, and ``waits`` makes the same of each that waits,
    oldest first: a call, because few decisions need it.
    """

    __slots__ = (
        "age",
        "bulk",
        "expected",
        "free",
        "idle",
        "oldest",
        "pending",
        "quiet",
        "room",
        "took",
        "waits",
        "workers",
    )

    def __init__(
        self,
        pending: int,
        age: float,
        idle: int,
        room: int,
        expected: int = 0,
        took: float = 0.0,
        quiet: float = 0.0,
        oldest: float = 0.0,
        waits: Callable[[], Sequence[float]] | None = None,
        workers: int = 1,
        free: int = 1,
        bulk: int = 0,
    ) -> None:
        self.pending = pending
        self.age = age
        self.idle = idle
        self.room = room
        self.expected = expected
        self.took = took
        self.quiet = quiet
        self.oldest = oldest
        self.waits = waits
        self.workers = workers
        self.free = free
        self.bulk = bulk

    def share(self, most: int) -> int:
        """A batch of at most ``most``, such that no thread of a worker is left without one that could have had one."""
        pending, free = self.pending, self.free
        return min(pending if free < 2 else -(-pending // free), most)


@mypyc_attr(acyclic=True)
class Decision:
    """Send ``take`` requests now; if 0, ask again after ``wait`` seconds (``None``: only when something changes)."""

    __slots__ = ("take", "wait")

    def __init__(self, take: int, wait: float | None = None) -> None:
        self.take = take
        self.wait = wait

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and (self.take, self.wait) == (other.take, other.wait)


NOTHING: Final = Decision(0)
SETTLE: Final = 0.02  # share of a batch's time that eager waits for its clients to come back
EARLY: Final = 0.002  # seconds: of a longer batch, the 0.1 ms until the next one is there is less than 5 %
RESOLUTION: Final = 1e-6  # seconds; a shorter wait is none: clocks may not be able to move by it


class Policy(Protocol):
    """When to cut a batch. ``batch_size`` is the largest batch it will ever cut."""

    batch_size: int

    def decide(self, view: View) -> Decision:
        """How many requests to send now, or how long to wait."""

    def sent(self, size: int, expected: int, gap: float, quiet: float) -> None:
        """A batch was cut. Its last request came ``gap`` seconds after an answer; the last answer is ``quiet`` ago."""

    def answered(self, size: int, seconds: float, now: float) -> None:
        """A batch came back ``seconds`` after a worker could begin with it."""


class Fixed:
    """A policy that learns nothing. ``delay`` is in seconds."""

    def __init__(self, batch_size: int, delay: float) -> None:
        self.batch_size = batch_size
        self.delay = delay

    def sent(self, size: int, expected: int, gap: float, quiet: float) -> None:
        """See :class:`Policy`."""

    def answered(self, size: int, seconds: float, now: float) -> None:
        """See :class:`Policy`."""


class Eager(Fixed):
    """Work-conserving: an idle worker takes what is there; requests gather only while every worker is busy.

    A worker that computes gets its next batch early only when that batch is full, so batches stay late-bound: a partial
    one could not start sooner anyway, and would leave those behind who come while it waits. A lone request never waits:
    0.08 ms where servers that wait out a 5 ms delay take 5.4 to 6.3 ms.

    One exception: just after a batch was answered, fewer requests than are expected wait up to 2 % of its time, and
    never longer than the delay. Clients that ask again at once come back within a millisecond of each other, and
    without this 8 of them on a batch size of 8 settle into batches of 1 and 7 for ever.

    Another: large requests that take longer to carry than to compute go in small batches (``View.bulk``), and to a busy
    worker as they come. What is in a cache is copied faster, and the worker copies while the server reads and writes.
    """

    def decide(self, view: View) -> Decision:
        """See the class."""
        pending = view.pending
        if not pending:
            return NOTHING
        most = min(self.batch_size, view.bulk or self.batch_size)
        if view.idle:
            return self._settle(view) or Decision(view.share(most))
        if not view.room or (pending < most and not view.bulk):
            return NOTHING
        return Decision(min(pending, most))

    def _settle(self, view: View) -> Decision | None:
        if view.pending >= min(view.expected, self.batch_size):
            return None
        left = min(self.delay, view.took * SETTLE) - view.quiet
        return Decision(0, left) if left > RESOLUTION else None


class Bucket(Eager):
    """As eager, for the queue that chooses requests of similar size (``core/buckets.py``): the later it chooses the
    more there is to choose from, so a busy worker gets its next batch early only if batches take next to no time.
    """

    def decide(self, view: View) -> Decision:
        """See the class."""
        return super().decide(view) if view.idle or view.took < EARLY else NOTHING


class Window(Fixed):
    """TorchServe's meaning of the delay: a worker waits for a first request as long as it takes, and then that long for
    the batch to fill.

    One worker at a time collects, and has one batch at a time, as there.
    """

    def decide(self, view: View) -> Decision:
        """See the class."""
        pending = view.pending
        if not pending or not view.idle:
            return NOTHING
        if pending >= self.batch_size:
            return Decision(self.batch_size)
        left = self.delay - view.age
        return Decision(0, left) if left > RESOLUTION else Decision(pending)
