"""Whether two answers say the same: byte for byte, or as JSON whose numbers are close."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """``where`` is a path into the JSON; ``error`` the largest distance that was found, absolute or relative."""

    same: bool
    error: float = 0.0
    where: str = ""

    def text(self) -> str:
        """``differs at $.score by 0.2``; without a number where it is no number that differs."""
        return f"differs at {self.where}" + (f" by {self.error:.3g}" if math.isfinite(self.error) else "")


def compare(left: bytes, right: bytes, tolerance: float) -> Difference:
    """Compare two bodies. Numbers are close if they differ by ``tolerance``, or by that share of the larger one."""
    if left == right:
        return Difference(True)
    try:
        return _compare(json.loads(left), json.loads(right), tolerance, "$")
    except ValueError:
        return Difference(False, math.inf, "the bytes")


def _compare(left: Any, right: Any, tolerance: float, where: str) -> Difference:
    if _is_number(left) and _is_number(right):
        return _numbers(float(left), float(right), tolerance, where)
    if type(left) is not type(right):
        return Difference(False, math.inf, where)
    if isinstance(left, Mapping):
        if left.keys() != right.keys():
            return Difference(False, math.inf, where)
        return _worst(_compare(value, right[key], tolerance, f"{where}.{key}") for key, value in left.items())
    if isinstance(left, list):
        if len(left) != len(right):
            return Difference(False, math.inf, where)
        pairs = enumerate(zip(left, right, strict=True))
        return _worst(_compare(*pair, tolerance, f"{where}[{index}]") for index, pair in pairs)
    return Difference(left == right, 0.0 if left == right else math.inf, where)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(left: float, right: float, tolerance: float, where: str) -> Difference:
    if left == right or (math.isnan(left) and math.isnan(right)):
        return Difference(True)
    distance = abs(left - right)
    error = distance / max(1.0, abs(left), abs(right))
    return Difference(error <= tolerance, error if not math.isnan(error) else math.inf, where)


def _worst(found: Any) -> Difference:
    worst = Difference(True)
    for one in found:
        if (not one.same, one.error) > (not worst.same, worst.error):
            worst = one
    return worst
