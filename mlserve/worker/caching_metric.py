"""One metric of a handler, and where its reports go.

In a worker they are kept until the batch is answered and travel with its results. Anywhere else, as in a handler's unit
test, nobody would take them: they are logged as one line each, in TorchServe's form.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Sequence
from typing import Any, Protocol

from mlserve.wire.payload import MetricRecord
from mlserve.worker.metric_types import UNITS, MetricTypes, metric_type, pairs_of

log = logging.getLogger("mlserve.worker.metrics")

EXACT, OF_MODEL, OF_ERROR = 0, 1, 2  # MetricRecord.origin


class Sink(Protocol):
    """Takes reports."""

    def keep(self, record: MetricRecord) -> None:
        """One report."""


class _Current:
    """The sink of this process's worker, for metrics that a handler makes itself."""

    sink: Sink | None = None


current = _Current()


class CachingMetric:
    """A metric with its unit, type and dimension names. Reports with other dimensions are logged and dropped."""

    def __init__(
        self,
        metric_name: str,
        unit: str | None,
        dimension_names: Sequence[str] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
        sink: Sink | None = None,
    ) -> None:
        self.metric_name = metric_name
        self.unit = UNITS.get(unit, unit or "unit")
        self.dimension_names = list(dimension_names or ())
        self.metric_type = _type(metric_type)
        self._sink = sink

    def add_or_update(self, value: float, dimension_values: Sequence[Any] = (), request_id: str = "") -> None:
        """Report ``value``; one dimension value per name, in their order."""
        if dimension_values is None or len(dimension_values) != len(self.dimension_names):
            log.error(
                "Metric %s is not updated with %s: it has the dimensions %s, and got the values %s",
                self.metric_name,
                value,
                self.dimension_names,
                None if dimension_values is None else list(dimension_values),
            )
            return
        pairs = [(name, str(text)) for name, text in zip(self.dimension_names, dimension_values, strict=True)]
        self.report(value, pairs, pairs, request_id, EXACT)

    def update(self, value: float, request_id: str = "", dimensions: Sequence[Any] = ()) -> None:
        """Report ``value`` with ``dimensions``, which become the metric's own."""
        pairs = pairs_of(dimensions)
        self.dimension_names = [name for name, _ in pairs]
        self.report(value, pairs, pairs, request_id, EXACT)

    def report(
        self,
        value: Any,
        pairs: list[tuple[str, str]],
        shown: Sequence[tuple[str, str]],
        request_id: str | None,
        origin: int,
        index: int = -1,
    ) -> None:
        """Hand one report on. ``shown`` is ``pairs`` with the dimensions that ``origin`` adds.

        Raises ValueError or TypeError for a value that is no number.
        """
        number = float(value)
        if number < 0 and self.metric_type is MetricTypes.COUNTER:
            log.error("Metric %s is not updated with %s: a counter only rises", self.metric_name, value)
            return
        sink = self._sink or current.sink
        if sink is None:
            dimensions = ",".join(f"{name}:{text}" for name, text in shown)
            tail = f",{request_id}" if request_id else ""
            log.info(
                "[METRICS]%s.%s:%s|#%s|#type:%s|#hostname:%s,%d%s",
                self.metric_name,
                self.unit,
                value,
                dimensions,
                self.metric_type.name,
                socket.gethostname(),
                time.time(),
                tail,
            )
            return
        kind = self.metric_type.value
        sink.keep(MetricRecord(self.metric_name, number, self.unit, kind, pairs, index, request_id or "", origin))


_type = metric_type  # the argument of the same name hides it in the constructor
