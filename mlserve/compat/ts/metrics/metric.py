"""``ts.metrics.metric``: a metric with a value of its own."""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from mlserve.compat.ts.metrics.unit import Units
from mlserve.worker.caching_metric import CachingMetric
from mlserve.worker.metric_types import MetricTypes

MetricUnit = Units()


class Metric:
    """A counter; ``update`` reports a value with the dimensions given here. Its text is TorchServe's line."""

    def __init__(
        self,
        name: str,
        value: float,
        unit: str | None,
        dimensions: Sequence[Any],
        request_id: str | None = None,
        metric_method: str | None = None,
    ) -> None:
        self.dimensions = dimensions
        self.dimension_names = [dimension.name for dimension in dimensions]
        self.dimension_values = [dimension.value for dimension in dimensions]
        self._metric = CachingMetric(name, unit, self.dimension_names)
        self.metric_type = MetricTypes.COUNTER
        self.name = self._metric.metric_name
        self.unit = self._metric.unit
        self.metric_method = metric_method
        self.value = value
        self.request_id = request_id

    def update(self, value: float) -> None:
        """Report ``value``."""
        self._metric.add_or_update(value, self.dimension_values, self.request_id or "")

    def reset(self) -> None:
        """Report 0."""
        self.update(0)

    def __str__(self) -> str:
        dimensions = ",".join(str(dimension) for dimension in self.dimensions)
        line = f"{self.name}.{self.unit}:{self.value}|#{dimensions}|#hostname:{socket.gethostname()},{int(time.time())}"
        return f"{line},{self.request_id}" if self.request_id else line

    def to_dict(self) -> OrderedDict[str, Any]:
        """As JSON shows it."""
        return OrderedDict(
            MetricName=self.name,
            Value=self.value,
            Unit=self.unit,
            Dimensions=self.dimensions,
            Timestamp=int(time.time()),
            HostName=socket.gethostname(),
            RequestId=self.request_id,
        )
