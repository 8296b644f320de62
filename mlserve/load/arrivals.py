"""When the requests of an open loop are meant to be sent: seconds from the beginning, one after the other, for ever.

Clients that know nothing of each other come as a Poisson process; a constant distance is the kindest load there is and
hides queueing, but is easier to compare.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

POISSON, CONSTANT = "poisson", "constant"
KINDS = (POISSON, CONSTANT)
HIGHEST_RATE = 1e6  # per second; a core sends a twentieth of it


def arrivals(kind: str, rate: float, seed: int = 0) -> Iterator[float]:
    """Moments of arrivals at ``rate`` per second, never falling. The same ``seed`` gives the same Poisson arrivals.

    Raises ``ValueError`` for a rate that is not above 0, or above ``HIGHEST_RATE``, and for another kind.
    """
    if not 0 < rate <= HIGHEST_RATE:
        raise ValueError(f"a rate is above 0 and at most {HIGHEST_RATE:,.0f}, not {rate}")
    if kind == CONSTANT:
        return (number / rate for number in itertools.count())
    if kind == POISSON:
        return _poisson(rate, seed)
    raise ValueError(f"arrivals are {' or '.join(KINDS)}, not {kind!r}")


def _poisson(rate: float, seed: int) -> Iterator[float]:
    draw = random.Random(seed)  # noqa: S311  # not for secrets
    moment = 0.0
    while True:
        moment += draw.expovariate(rate)
        yield moment
