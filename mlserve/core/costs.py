"""What a batch of n requests costs, learned from those that were answered.

The model is ``cost(n) = a*n + b``: ``b`` is paid per batch, ``a`` per request. It is fitted to the median of each size
by Theil and Sen's method (the median of the slopes between all pairs), which up to 29 % of wrong points do not move: a
garbage collection or a page fault makes a batch ten times as long, and least squares would believe it. Sizes that have
been seen often enough are known by their own median, so that a step in the cost (padding to a multiple of 8, a cache
that overflows) is seen as one. What is old is forgotten: a size keeps its last 16 batches, and one that has not been
seen for 512 batches says nothing any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import combinations
from statistics import median

KEPT = 16  # batches of each size
KNOWN = 3  # batches after which a size's own median counts
STALE = 512  # batches
FITTED = 12  # sizes at most, evenly spread: 66 pairs


class CostModel:
    """Seconds by batch size, up to ``largest``. Nothing is known at first: every batch is predicted to take 0."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.fixed = 0.0  # b
        self.each = 0.0  # a
        self._rings: dict[int, deque[float]] = {}
        self._seen: dict[int, int] = {}  # size -> the number of the last batch of that size
        self._count = 0
        self._table = [0.0] * (largest + 1)

    def observe(self, size: int, seconds: float) -> None:
        """A batch of ``size`` was answered after ``seconds``. It counts from the next :meth:`refit` on."""
        ring = self._rings.get(size)
        if ring is None:
            ring = self._rings[size] = deque(maxlen=KEPT)
        ring.append(seconds)
        self._count += 1
        self._seen[size] = self._count

    def at(self, size: int) -> float:
        """Seconds that a batch of ``size`` usually takes; 0 while nothing is known."""
        return self._table[size]

    def batches_of(self, size: int) -> int:
        """How many batches of ``size`` the model remembers, at most ``KEPT``."""
        ring = self._rings.get(size)
        return len(ring) if ring is not None else 0

    def refit(self) -> None:
        """Fit the model to what was observed: about 0.2 ms, so not for every batch."""
        for size in [size for size, seen in self._seen.items() if self._count - seen > STALE]:
            del self._rings[size], self._seen[size]
        middle = {size: median(self._rings[size]) for size in sorted(self._rings)}
        if not middle:
            return
        self._fit(middle)
        table = [self.each * size + self.fixed for size in range(self.largest + 1)]
        for size, seconds in middle.items():
            if size <= self.largest and len(self._rings[size]) >= KNOWN:
                table[size] = seconds
        self._table = table

    def _fit(self, middle: dict[int, float]) -> None:
        """Set ``a`` and ``b``. Of one size nobody can tell which is which: it is all ``b``, so that nobody expects
        smaller batches to be quicker before one was."""
        sizes = list(middle)
        if len(sizes) > FITTED:
            step = (len(sizes) - 1) / (FITTED - 1)
            sizes = [sizes[round(index * step)] for index in range(FITTED)]
        self.each, self.fixed = line([(float(size), middle[size]) for size in sizes])


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope and height at 0 of the line through (x, y) points by Theil and Sen's method, neither below 0.

    Points of one x have no slope.
    """
    pairs = combinations(points, 2)
    slopes = [(high[1] - low[1]) / (high[0] - low[0]) for low, high in pairs if high[0] != low[0]]
    slope = max(median(slopes), 0.0) if slopes else 0.0
    return slope, max(median(y - slope * x for x, y in points), 0.0)
