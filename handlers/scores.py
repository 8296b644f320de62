"""``handler: {min_score: 0.2, max_score: 0.9}`` in model-config.yaml: what of a model's output an answer holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def score_range(config: Mapping[str, Any] | None, least: float = 0.0, most: float = 1.0) -> tuple[float, float]:
    """The least and the greatest score that are answered, both included; ``least`` and ``most`` where none is set.

    Raises ``ValueError`` that names the key at fault.
    """
    options = (config or {}).get("handler")
    options = options if isinstance(options, Mapping) else {}
    least, most = score(options, "min_score", least), score(options, "max_score", most)
    if least > most and not options.keys().isdisjoint(("min_score", "max_score")):
        raise ValueError(f"handler.min_score in model-config.yaml is {least}, which is above max_score, {most}")
    return least, most


def score(options: Mapping[str, Any], key: str, default: float) -> float:
    """The score called ``key``, or ``default``. Raises ``ValueError`` if it is no number from 0 to 1."""
    if key not in options:
        return default
    value = options[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"handler.{key} in model-config.yaml must be a number from 0 to 1, got {value!r}")
    return float(value)


def limited(least: float, most: float) -> bool:
    """Whether a range leaves anything out: answers of models that go astray, as NaN, are otherwise left as they are."""
    return least > 0 or most < 1
