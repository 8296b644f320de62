"""The words of ``context.metrics``: types, dimensions, units and errors, with TorchServe's names and values.

``mlserve.compat.ts.metrics`` shows the same objects as ``ts.metrics.*``, so an ``isinstance`` or an ``except`` in a
handler written for TorchServe meets what is used here.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any


class MetricTypes(enum.Enum):
    """How reports of a metric come together."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Dimension:
    """A label of a report: ``name`` and ``value``."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {"Name": self.name, "Value": self.value}


UNITS: dict[str | None, str] = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "MB": "Megabytes",
    "GB": "Gigabytes",
    "kB": "Kilobytes",
    "B": "Bytes",
    "": "unit",
    None: "unit",
}
"""Short name -> the unit that is shown; any other text is shown as it is."""


class GeneralMetricsCacheError(Exception):
    """Anything else that is wrong with the cache."""

    def __init__(self, message: object) -> None:
        super().__init__(f"Generic error: {message}")


class MetricsCacheIOError(OSError):
    """The file cannot be read."""

    def __init__(self, message: object) -> None:
        super().__init__(f"Error reading file: {message}")


class MetricsCacheTypeError(TypeError):
    """An argument is of a wrong type."""

    def __init__(self, message: object) -> None:
        super().__init__(str(message))


class MetricsCacheValueError(ValueError):
    """An argument has a value that cannot be."""

    def __init__(self, message: object) -> None:
        super().__init__(str(message))


class MetricsCacheKeyError(KeyError):
    """There is no such metric, or no such key."""

    def __init__(self, message: object) -> None:
        super().__init__(str(message))


def metric_type(value: Any) -> MetricTypes:
    """``value`` as a :class:`MetricTypes`: itself, another enum of the same values, or one of them as text.

    Raises :class:`MetricsCacheTypeError`.
    """
    if isinstance(value, MetricTypes):
        return value
    text = getattr(value, "value", value)
    if isinstance(text, str):
        try:
            return MetricTypes(text.lower())
        except ValueError:
            raise MetricsCacheTypeError(f"`metric_type` must be a MetricTypes enum, got {value!r}") from None
    raise MetricsCacheTypeError("`metric_type` must be a MetricTypes enum")


def pairs_of(dimensions: Iterable[Any] | None) -> list[tuple[str, str]]:
    """(name, value) of each dimension: an object with both, or a pair. Raises ValueError."""
    pairs = []
    for dimension in dimensions or ():
        if isinstance(dimension, (tuple, list)) and len(dimension) == 2:
            name, value = dimension
        elif hasattr(dimension, "name") and hasattr(dimension, "value"):
            name, value = dimension.name, dimension.value
        else:
            raise ValueError(f"A metric's dimension is a (name, value) pair or has .name and .value, got {dimension!r}")
        pairs.append((str(name), str(value)))
    return pairs
