"""What the host of a virtual machine took from it: time in which a core was ready to run here and ran somebody else.

Such time is in no figure of a server and slows all of them: a reader is to see it beside the rates.
"""

import statistics
from collections.abc import Sequence

import psutil


class Stolen:
    """The share of all cores' time that the host took since this was made: 0 to 1; 0 where the kernel does not tell."""

    def __init__(self) -> None:
        self._stolen, self._all = _seconds()

    def share(self) -> float:
        """So far."""
        stolen, everything = _seconds()
        return (stolen - self._stolen) / max(everything - self._all, 1e-9)


def _seconds() -> tuple[float, float]:
    """(stolen, all) of the cores since the machine started."""
    times = psutil.cpu_times()
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # these are in user and nice as well
    return getattr(times, "steal", 0.0), sum(times) - guests


def shown(shares: Sequence[float | None]) -> str:
    """``median (most)`` in percent; a dash for what was measured before this was."""
    known = [share for share in shares if share is not None]
    return f"{statistics.median(known):.0%} ({max(known):.0%})" if known else "–"
