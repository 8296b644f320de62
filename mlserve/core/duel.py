"""Which of two largest batches gives more answers a second: cut with one and the other in turns.

A turn is measured in two ways. Requests over the time in which at least one batch was computed: so batches that share
a machine (several workers, ``handlerThreads``) are measured as they run, beside others of their size, and gaps in the
load do not count. And requests over the time of all its batches, which does not take it for speed when workers that
were idle get something to do. Under full load both say the same; the less favourable counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt

NOISE, BELIEF = 0.05, 2  # what a turn is believed to be off by before it is known, and the turns that this is worth
LONG = 0.1  # seconds of a turn that are enough, if it has the requests of one batch of each worker
SHORT, MANY = 0.01, 16  # seconds that are enough for a turn of as many batches
WORTH = 0.03  # how much more answers a size must give, as a logarithm: less is not worth a change
SURE, SURER = 2.0, 3.0  # standard errors; to leave a size that has been found already
LONE = 2.5  # times as many after one turn
MOST, ENOUGH = 10, 6.0  # turns of the other, or seconds of three and more of them, after which the mean decides
LARGEST = 0.7  # a turn counts no more than this
OUTLIER = 1.8  # times as long, and a garbage collection is in it: a host that takes 40 % of the cores makes 1.67
APART = 1.3  # times as many requests in a batch, or the two were not compared
HOPELESS = 2.0  # times the best's time for as many requests, after which the turn is over


class Turn:
    """Batches that are cut with one cap: ``requests``, and ``busy`` seconds in which any of them was computed.

    It begins when the ``old`` batches are back that were cut with the cap ``before``, and ``cold`` ones after them.
    """

    def __init__(self, cap: int, enough: int, now: float, before: int = 0, old: int = 0, cold: int = 0) -> None:
        self.cap = cap
        self.enough = enough  # requests
        self.begun = self._since = now
        self.requests = self.batches = 0
        self.came = 0  # requests, with those of cold batches
        self._chill = 0.0  # seconds of the latter
        self.busy = 0.0
        self.total = 0.0  # seconds of all batches, each for itself
        self.old = old  # batches that have not come; in the end those that did not, because a worker died with them
        self._waiting = bool(old)
        self._before, self._cold = before, cold
        self._patience = 8 * enough  # requests that come before they are called missing
        self._spans: list[tuple[float, float]] = []

    def add(self, size: int, begin: float, end: float) -> None:
        """A batch was computed from ``begin`` to ``end``, and ended no earlier than those before."""
        if self._waiting or self._cold or size > self.cap:
            self._skip(size, begin, end)
            self._since = end
            return
        self.came += size
        self.requests += size
        self.batches += 1
        self.total += end - begin
        begin = max(begin, self._since)
        spans = self._spans
        while spans and spans[-1][1] >= begin:
            first, last = spans.pop()
            begin = min(begin, first)
            self.busy -= last - first
        spans.append((begin, end))
        self.busy += end - begin

    def _skip(self, size: int, begin: float, end: float) -> None:
        self._patience -= size
        if self._waiting:
            shaped = size > self.cap if self.cap < self._before else size <= self._before
            self.old -= shaped or begin < self.begun
            self._waiting = self.old > 0 and self._patience > 0
        elif self._cold:
            self._cold -= 1
            self.came += size
            self._chill += end - max(begin, self._since)

    @property
    def over(self) -> bool:
        """Whether it is long enough."""
        many = self.busy >= SHORT and self.requests >= MANY * self.enough
        return many or (self.busy >= LONG and self.requests >= self.enough)

    @property
    def spent(self) -> float:
        """Seconds of the requests that came."""
        return self.busy + self._chill

    @property
    def each(self) -> float:
        """Seconds in which a request was answered."""
        return max(self.busy, 1e-9) / self.requests

    @property
    def work(self) -> float:
        """A worker's seconds for a request."""
        return max(self.total, 1e-9) / self.requests

    @property
    def mean(self) -> float:
        """Requests in a batch."""
        return self.requests / self.batches


class Duel:
    """Turns of ``best``, of ``other``, of ``best`` and so on. ``sure`` is how plain the other must be better."""

    def __init__(self, best: int, other: int, noise: float = NOISE, sure: float = SURE) -> None:
        self.best = best
        self.other = other
        self.noise = noise  # what one turn is off by
        self.sure = sure  # standard errors
        self.gains: list[float] = []  # logarithms of how much more a second the other gave, turn by turn
        self.lost = 0.0  # seconds, compared with going on with the best
        self._turns: list[Turn] = []

    def add(self, turn: Turn) -> bool:
        """Take a turn that is over. False if batches are much the same in both: the load does not need more."""
        turns = self._turns
        turns.append(turn)
        if turn.cap == self.other:
            self.lost += max(0.0, turn.spent - turn.came * turns[-2].each)
        if len(turns) == 1:
            return True
        both = gains([one.each for one in turns]), gains([one.work for one in turns])
        self.gains = min(both, key=mean)
        low, high = sorted(turns[-2:], key=lambda one: one.cap)
        return high.mean > APART * low.mean

    def hopeless(self, turn: Turn) -> bool:
        """Whether a turn of the other has taken so much longer than one of the best that its end need not come."""
        if turn.cap == self.best or not turn.requests:
            return False
        return turn.busy > max(SHORT, HOPELESS * turn.enough * self._turns[-1].each)

    @property
    def gain(self) -> float:
        """Mean of the gains."""
        return mean(self.gains)

    @property
    def spread(self) -> float:
        """Standard deviation of a gain."""
        square = sum((one - self.gain) ** 2 for one in self.gains)
        return sqrt((BELIEF * self.noise**2 + square) / (BELIEF + len(self.gains) - 1))

    def won(self) -> bool | None:
        """Whether the other gives more; ``None`` while nobody can tell."""
        count = len(self.gains)
        if not count or len(self._turns) % 2 == 0:
            return None
        error = self.spread / sqrt(count)
        if self.gain > max(self.sure * error * (1 if count > 1 else LONE), WORTH):
            return True
        if self.gain + error * (SURE if count > 1 else SURER * LONE) < WORTH:
            return False
        tired = len(self._turns) > 2 * MOST or (count > 2 and sum(one.busy for one in self._turns) > ENOUGH)
        return self.gain > max((self.sure - SURE) * error, WORTH) if tired else None


def gains(each: Sequence[float]) -> list[float]:
    """Of seconds for a request, in turns of the best, the other, the best and so on: logarithms of how much more a
    second each of the other's turns gave than those beside it.

    A turn that took more than ``OUTLIER`` times as long as another of the same size says nothing.
    """
    least = min(each[::2]), min(each[1::2])
    sound = [value <= OUTLIER * least[at % 2] for at, value in enumerate(each)]
    found = []
    for at in range(1, len(each) - 1, 2):
        beside = [log(each[one]) for one in (at - 1, at + 1) if sound[one]]
        if sound[at] and beside:
            found.append(max(-LARGEST, min(LARGEST, sum(beside) / len(beside) - log(each[at]))))
    return found


def mean(values: Sequence[float]) -> float:
    """Of no values 0."""
    return sum(values) / max(1, len(values))
