"""``context.metrics``: collects what a handler reports; it travels to the server with the batch's result.

The names and argument order are TorchServe's, so handlers written for it run unchanged. A metric type may be given as a
string or as any enum whose value is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlserve.wire.payload import MetricRecord

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
_UNITS = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "B": "Bytes",
    "kB": "Kilobytes",
    "MB": "Megabytes",
    "GB": "Gigabytes",
    "percent": "Percent",
    "count": "Count",
    "": "unit",
}


def _kind(metric_type: Any) -> str:
    kind = str(getattr(metric_type, "value", metric_type)).lower()
    if kind not in (COUNTER, GAUGE, HISTOGRAM):
        raise ValueError(f"Unknown metric type {metric_type!r}: use counter, gauge or histogram")
    return kind


def _pairs(dimensions: Sequence[Any] | None) -> list[tuple[str, str]]:
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


class CachedMetric:
    """A metric declared once with its dimension names, then fed with values; see :meth:`Metrics.get_metric`."""

    def __init__(self, sink: Metrics, name: str, unit: str, dimension_names: Sequence[str], kind: str) -> None:
        self.metric_name = name
        self.unit = unit
        self.dimension_names = list(dimension_names)
        self.metric_type = kind
        self._sink = sink

    def add_or_update(self, value: float, dimension_values: Sequence[str] = (), request_id: str = "") -> None:
        """Report a value; one dimension value per declared name, in order. Raises ValueError if they do not match."""
        if len(dimension_values) != len(self.dimension_names):
            raise ValueError(
                f"Metric {self.metric_name} has the dimensions {self.dimension_names}, "
                f"got the values {list(dimension_values)}"
            )
        pairs = list(zip(self.dimension_names, dimension_values, strict=True))
        self._sink.record(self.metric_name, value, self.unit, self.metric_type, None, pairs)

    def update(self, value: float, request_id: str = "", dimensions: Sequence[Any] = ()) -> None:
        """Report a value with dimensions given as pairs or objects."""
        self._sink.record(self.metric_name, value, self.unit, self.metric_type, None, dimensions)


class Metrics:
    """The sink behind ``context.metrics``. ``idx`` is the request's index in the batch the handler sees."""

    def __init__(self) -> None:
        self.records: list[MetricRecord] = []
        self.cache: dict[tuple[str, str], CachedMetric] = {}

    def take(self) -> list[MetricRecord]:
        """What was reported since the last call."""
        records, self.records = self.records, []
        return records

    def record(
        self, name: str, value: float, unit: str | None, kind: Any, idx: int | None, dimensions: Sequence[Any] | None
    ) -> None:
        """Keep one report. Raises ValueError for a value that is no number, a bad type or a bad dimension."""
        if not name:
            raise ValueError("A metric needs a name")
        unit = _UNITS.get(unit or "", unit or "")
        index = -1 if idx is None else int(idx)
        self.records.append(MetricRecord(str(name), float(value), unit, _kind(kind), _pairs(dimensions), index))

    def add_counter(self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Any] = ()) -> None:
        """Add to a counter."""
        self.record(name, value, "count", COUNTER, idx, dimensions)

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Any] = (),
        metric_type: Any = GAUGE,
    ) -> None:
        """Report a duration in ``unit``, "ms" or "s"."""
        if unit not in ("ms", "s"):
            raise ValueError(f"Metric {name}: the unit of a time is 'ms' or 's', got {unit!r}")
        self.record(name, value, unit, metric_type, idx, dimensions)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Any] = (),
        metric_type: Any = GAUGE,
    ) -> None:
        """Report a size in ``unit``, "B", "kB", "MB" or "GB"."""
        if unit not in ("B", "kB", "MB", "GB"):
            raise ValueError(f"Metric {name}: the unit of a size is 'B', 'kB', 'MB' or 'GB', got {unit!r}")
        self.record(name, value, unit, metric_type, idx, dimensions)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Sequence[Any] = (),
        metric_type: Any = GAUGE,
    ) -> None:
        """Report a share, in percent."""
        self.record(name, value, "percent", metric_type, idx, dimensions)

    def add_error(self, name: str, value: Any, dimensions: Sequence[Any] = ()) -> None:
        """Count an error; a text cannot be a number, so it becomes the dimension ``error``."""
        self.record(name, 1.0, "count", COUNTER, None, [*_pairs(dimensions), ("error", str(value))])

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str = "",
        idx: int | None = None,
        dimensions: Sequence[Any] = (),
        metric_type: Any = COUNTER,
    ) -> None:
        """Report any other number."""
        self.record(name, value, unit, metric_type, idx, dimensions)

    def add_metric_to_cache(
        self, metric_name: str, unit: str, dimension_names: Sequence[str] = (), metric_type: Any = COUNTER
    ) -> CachedMetric:
        """Declare a metric and return it."""
        kind = _kind(metric_type)
        metric = self.cache[metric_name, kind] = CachedMetric(self, metric_name, unit, dimension_names, kind)
        return metric

    def get_metric(self, metric_name: str, metric_type: Any = COUNTER) -> CachedMetric:
        """A metric declared before. Raises KeyError if it was not."""
        kind = _kind(metric_type)
        try:
            return self.cache[metric_name, kind]
        except KeyError:
            raise KeyError(f"No {kind} {metric_name!r} was declared; call add_metric_to_cache first") from None
