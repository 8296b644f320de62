"""``context.metrics``: collects what a handler reports; it travels to the server with the batch's result.

Names, argument order and errors are TorchServe's, so handlers written for it run unchanged. What TorchServe adds to a
report of ``add_*`` (the dimensions ModelName and Level, the requests' ids) the server adds from what it knows already.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlserve.wire.payload import MetricDeclaration, MetricRecord
from mlserve.worker.caching_metric import OF_ERROR, OF_MODEL, CachingMetric
from mlserve.worker.metric_types import (
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricTypes,
    metric_type,
    pairs_of,
)

if TYPE_CHECKING:
    from mlserve.handler import Context

log = logging.getLogger("mlserve.worker.metrics")

_TIMES = ("ms", "s")
_SIZES = ("B", "kB", "MB", "GB")


class Metrics:
    """The metrics of one handler, by type and name. ``idx`` is the request's index in the batch the handler sees."""

    def __init__(self, declared: Sequence[MetricDeclaration] = (), model_name: str | None = None) -> None:
        self._records: list[MetricRecord] = []
        self._apart: threading.local | None = None
        self._taking = threading.Lock()
        self.cache: dict[MetricTypes, dict[str, CachingMetric]] = {}
        self.store: list[Any] = []  # TorchServe's, always empty
        self.model_name = model_name
        self._request_ids: Any = None
        self._context: Context | None = None
        for one in declared:
            self.add_metric_to_cache(one.name, one.unit, one.dimensions, MetricTypes(one.kind))

    # -- the worker's side --------------------------------------------------------------------------------------------

    def follow(self, context: Context) -> None:
        """Take request ids from ``context`` from now on."""
        self._context = context

    @property
    def records(self) -> list[MetricRecord]:
        """What was reported since the last :meth:`take`: by this thread, where it keeps its reports apart."""
        return self._records if self._apart is None else getattr(self._apart, "records", self._records)

    def keep(self, record: MetricRecord) -> None:
        """See ``Sink``."""
        self.records.append(record)

    def keep_apart(self) -> None:
        """What the calling thread reports is its own from now on: others answer batches beside it."""
        with self._taking:
            if self._apart is None:
                self._apart = threading.local()
        self._apart.records = []

    def take(self) -> list[MetricRecord]:
        """What was reported since the last call, by this thread and by those that belong to nobody."""
        if self._apart is None:
            records, self._records = self._records, []
            return records
        with self._taking:
            records, self._records = self._records, []
        own = getattr(self._apart, "records", [])
        records += own
        own.clear()
        return records

    # -- the handler's side -------------------------------------------------------------------------------------------

    @property
    def request_ids(self) -> Any:
        """Index -> id of the requests of the present batch, or what was set."""
        return self._context.request_ids if self._context is not None else self._request_ids

    @request_ids.setter
    def request_ids(self, value: Any) -> None:
        self._request_ids = value

    def set_request_ids(self, request_ids: Any) -> None:
        """Report for these requests; in a worker the present batch's count."""
        self._request_ids = request_ids

    def add_counter(self, name: str, value: float, idx: Any = None, dimensions: Sequence[Any] = ()) -> None:
        """Add to a counter."""
        self._add(name, value, "count", idx, dimensions, MetricTypes.COUNTER)

    def add_time(
        self,
        name: str,
        value: float,
        idx: Any = None,
        unit: str = "ms",
        dimensions: Sequence[Any] = (),
        metric_type: Any = MetricTypes.GAUGE,
    ) -> None:
        """Report a duration in ``unit``, "ms" or "s"."""
        if unit not in _TIMES:
            raise ValueError(f"Metric {name}: the unit of a time is one of {', '.join(_TIMES)}, got {unit!r}")
        self._add(name, value, unit, idx, dimensions, metric_type)

    def add_size(
        self,
        name: str,
        value: float,
        idx: Any = None,
        unit: str = "MB",
        dimensions: Sequence[Any] = (),
        metric_type: Any = MetricTypes.GAUGE,
    ) -> None:
        """Report a size in ``unit``, "B", "kB", "MB" or "GB"."""
        if unit not in _SIZES:
            raise ValueError(f"Metric {name}: the unit of a size is one of {', '.join(_SIZES)}, got {unit!r}")
        self._add(name, value, unit, idx, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: Any = None,
        dimensions: Sequence[Any] = (),
        metric_type: Any = MetricTypes.GAUGE,
    ) -> None:
        """Report a share, in percent."""
        self._add(name, value, "percent", idx, dimensions, metric_type)

    def add_error(self, name: str, value: Any, dimensions: Sequence[Any] = ()) -> None:
        """Add to a counter of errors. A text cannot be a number: it becomes the dimension ``error`` and counts 1."""
        if isinstance(value, str):
            self._add(name, 1.0, "count", None, [*pairs_of(dimensions), ("error", value)], "counter", OF_ERROR)
        else:
            self._add(name, value, "", None, dimensions, MetricTypes.COUNTER, OF_ERROR)

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str = "",
        idx: Any = None,
        dimensions: Sequence[Any] = (),
        metric_type: Any = MetricTypes.COUNTER,
    ) -> None:
        """Report any other number."""
        self._add(name, value, unit, idx, dimensions, metric_type)

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: Any = MetricTypes.COUNTER,
    ) -> CachingMetric:
        """Declare a metric and return it; an earlier one of that name and type is replaced.

        Raises ``MetricsCacheTypeError``.
        """
        if not isinstance(metric_name, str):
            raise MetricsCacheTypeError("`metric_name` must be a str")
        if not isinstance(unit, str):
            raise MetricsCacheTypeError("`unit` must be a str")
        kind = _type(metric_type)
        if dimension_names and not isinstance(dimension_names, (list, tuple)):
            raise MetricsCacheTypeError("`dimension_names` should be a list of dimension name strings")
        known = self.cache.setdefault(kind, {})
        if metric_name in known:
            log.debug("the %s %s is declared anew", kind.value, metric_name)
        made = known[metric_name] = CachingMetric(metric_name, unit, dimension_names, kind, self._sink())
        return made

    def get_metric(self, metric_name: str, metric_type: Any = MetricTypes.COUNTER) -> CachingMetric:
        """A metric declared before, by the handler or by ``metrics.config``. Raises ``MetricsCacheKeyError``."""
        if not isinstance(metric_name, str):
            raise MetricsCacheTypeError("`metric_name` must be a str")
        kind = _type(metric_type)
        try:
            return self.cache[kind][metric_name]
        except KeyError:
            raise MetricsCacheKeyError(f"Metric of type '{kind}' and name '{metric_name}' doesn't exist") from None

    def cache_keys(self) -> list[str]:
        """``gauge:HandlerTime`` for each metric there is."""
        return [f"{kind.value}:{name}" for kind, metrics in self.cache.items() for name in metrics]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _sink(self) -> Metrics | None:
        """Who takes the reports of this cache's metrics; None = whoever is current in this process."""
        return self

    def _add(
        self,
        name: str,
        value: Any,
        unit: str | None,
        idx: Any,
        dimensions: Sequence[Any],
        metric_type: Any,
        origin: int = OF_MODEL,
    ) -> None:
        """Report by name; the metric is declared by its first report. Raises ValueError and TypeError."""
        if not name:
            raise ValueError("A metric needs a name")
        kind = _type(metric_type)
        pairs = pairs_of(dimensions)
        request, everybody = self._request(idx) if origin == OF_MODEL else ("", "")
        shown = self._with_defaults(pairs, origin, request or everybody)
        metric = self.cache.get(kind, {}).get(name)
        if metric is None:
            float(value)  # a report that cannot be must not leave a declaration behind
            metric = self.add_metric_to_cache(str(name), unit or "", [name for name, _ in shown], kind)
        index = idx if isinstance(idx, int) else -1
        metric.report(value, pairs, shown, request or (everybody if self._context is None else ""), origin, index)

    def _request(self, idx: Any) -> tuple[str, str]:
        """The id of request ``idx``, if it is one, and the ids of all."""
        ids = self.request_ids
        if not isinstance(ids, Mapping):
            return "", str(ids or "")
        one = ids.get(idx, "") if isinstance(idx, int) else ""
        return one, ("" if self._context is not None else ",".join(ids.values()))

    def _with_defaults(self, pairs: list[tuple[str, str]], origin: int, request: str) -> list[tuple[str, str]]:
        """What the server will make of ``pairs``."""
        names = {name for name, _ in pairs}
        if origin == OF_ERROR or not (request or self._context):
            return pairs if "Level" in names else [*pairs, ("Level", "Error")]
        added = (("ModelName", str(self.model_name)), ("Level", "Model"))
        return [*pairs, *(pair for pair in added if pair[0] not in names)]


def take_metrics(context: Context) -> list[MetricRecord]:
    """What was reported through ``context.metrics`` since the last call; nothing where a handler put its own there."""
    metrics = context.metrics
    return metrics.take() if isinstance(metrics, Metrics) else []


_type = metric_type  # the arguments of the same name hide it
