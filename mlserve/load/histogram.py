"""Latencies counted in buckets of growing width: memory is bounded, whatever the number and size of the values.

A value is a whole number of ticks of 100 ns. The first 1024 ticks have a bucket each; from there on every power of two
is cut into 512 buckets, so a bucket is at most 1/512 of its lower bound wide and its middle is at most
``RELATIVE_ERROR`` away from any value in it (the principle of https://hdrhistogram.org). Smallest, largest and sum are
kept exactly.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence

TICK = 1e-7  # seconds
RELATIVE_ERROR = 1 / 1024  # of a quantile, beside half a tick
LARGEST = 36_000.0  # seconds; longer ones count as this long in quantiles

_HALF = 9  # bits: 2**9 buckets for each power of two
_LAST_TICK = int(LARGEST / TICK)


def bucket_of(tick: int) -> int:
    """The bucket of a value of ``tick`` >= 0 ticks."""
    shift = max(0, tick.bit_length() - _HALF - 1)
    return (shift << _HALF) + (tick >> shift)


def bounds_of(bucket: int) -> tuple[int, int]:
    """The first and the last value, in ticks, that fall into ``bucket``."""
    shift = max(0, (bucket >> _HALF) - 1)
    low = (bucket - (shift << _HALF)) << shift
    return low, low + (1 << shift) - 1


_BUCKETS = bucket_of(_LAST_TICK) + 1  # some 15,000


class Histogram:
    """Counts of durations in seconds."""

    __slots__ = ("_counts", "_reached", "_reached_by", "count", "largest", "smallest", "total")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._reached: list[int] = []  # how many values are in a bucket or below it, when there were _reached_by
        self._reached_by = -1
        self.count = 0
        self.total = 0.0
        self.smallest = math.inf
        self.largest = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration; below 0 (a clock that went back) it is 0."""
        tick = int(seconds * 1e7 + 0.5) if seconds > 0 else 0
        if tick > _LAST_TICK:
            tick = _LAST_TICK
        shift = tick.bit_length() - 10  # bucket_of(), written out: this runs once for every answer
        if shift > 0:
            self._counts[(shift << 9) + (tick >> shift)] += 1
        else:
            self._counts[tick] += 1
        self.count += 1
        self.total += seconds
        if seconds > self.largest:
            self.largest = seconds
        if seconds < self.smallest:
            self.smallest = seconds

    def merge(self, other: Histogram) -> None:
        """Add everything that ``other`` has counted."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self.count += other.count
        self.total += other.total
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)

    @property
    def mean(self) -> float:
        """Of all durations, in seconds; NaN where there is none."""
        return self.total / self.count if self.count else math.nan

    def quantile(self, share: float) -> float:
        """The duration that at least ``share`` (0 to 1) of the counted ones do not exceed (nearest rank), in seconds.

        NaN where nothing was counted. 0 and 1 give the smallest and the largest exactly.
        """
        return self.quantiles((share,))[0]

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """:meth:`quantile` of each of the ``shares``, in one pass."""
        found: list[float] = []
        if self._reached_by != self.count:  # adding up 15,000 counts takes half a millisecond
            self._reached, self._reached_by = list(itertools.accumulate(self._counts)), self.count
        for share in shares:
            if not 0 <= share <= 1:
                raise ValueError(f"a share is between 0 and 1, not {share}")
            # A share such as 0.99 is no binary fraction: without the rounding 0.99 * 100 may ask for the 100th of 100.
            rank = max(1, math.ceil(round(share * self.count, 6)))
            if not self.count:
                found.append(math.nan)
            elif share == 0 or rank == self.count:
                found.append(self.largest if rank == self.count else self.smallest)
            else:
                middle = sum(bounds_of(bisect.bisect_left(self._reached, rank))) / 2 * TICK
                found.append(min(max(middle, self.smallest), self.largest))
        return found
