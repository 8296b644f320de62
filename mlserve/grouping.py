"""Which items of different lengths to compute together, so that little is spent on padding.

A call costs about its longest item times its items, and a part that does not depend on them. The items are sorted by
length and cut where two calls cost less than the padding between them, exactly (dynamic programming over the different
lengths). MiniLM on a CPU, texts of 3 to 200 words, tokens drawn evenly on a logarithmic scale, CPU seconds for 128 of
them: 7.4 in padded batches of 32, 5.8 of 8; 2.3 cut from batches of 64, 2.6 from 32, and 2.4 if all 128 are sorted
first and taken 8 by 8.
"""

from __future__ import annotations

from collections.abc import Sequence


def groups(lengths: Sequence[int], call: float, most: int = 0) -> list[list[int]]:
    """Indexes into ``lengths`` by call, in the cheapest way, shortest items first.

    ``call`` is what a call costs beside its items, in units of length; ``most`` items may be in one, 0 is any number.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    # Cuts between items of one length save nothing, but where they are too many for one call.
    ends = [end for end in range(1, len(order)) if most or lengths[order[end - 1]] != lengths[order[end]]]
    ends = [0, *ends, len(order)] if order else [0]
    best, came_from = [0.0], [0]
    for last in range(1, len(ends)):
        longest, first, cheapest = lengths[order[ends[last] - 1]], last - 1, float("inf")
        while first >= 0 and (not most or ends[last] - ends[first] <= most):
            cost = best[first] + (ends[last] - ends[first]) * longest + call
            if cost < cheapest:
                cheapest, start = cost, first
            first -= 1
        best.append(cheapest)
        came_from.append(start)
    found: list[list[int]] = []
    last = len(ends) - 1
    while last > 0:
        found.append(order[ends[came_from[last]] : ends[last]])
        last = came_from[last]
    return found[::-1]
