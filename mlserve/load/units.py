"""Durations and lists of numbers as people write them: ``50ms``, ``2s``, ``1,8,32``."""

from __future__ import annotations

import math
import re

from mlserve.errors import SettingError

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(us|µs|ms|s|m|min|h)?")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds_of(text: str, what: str) -> float:
    """A duration in seconds; a bare number is one of seconds. Raises :class:`SettingError` that names ``what``."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise SettingError(f"{what}: {text!r} is no duration; write it like 50ms, 2s or 1m")
    return float(found[1]) * _SECONDS[found[2] or ""]


def numbers_of(text: str, what: str, *, whole: bool) -> list[float]:
    """Numbers above 0, separated by commas. Raises :class:`SettingError` that names ``what``."""
    found = []
    for part in text.split(","):
        try:
            number = float(int(part)) if whole else float(part)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            kind = "whole numbers" if whole else "numbers"
            raise SettingError(f"{what}: {part.strip()!r} in {text!r}; it takes {kind} above 0, like 1,8,32")
        found.append(number)
    return found


def duration_text(seconds: float) -> str:
    """A duration with three digits and the unit that fits; a dash for none (NaN)."""
    if math.isnan(seconds):
        return "–"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size * 0.9995:
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds / 1e-6)} µs"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"
