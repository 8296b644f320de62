"""TorchServe's metrics: kept for Prometheus, or written as lines, or both (``metrics.mode``).

An ``Observer`` of the service. Handlers' reports come with their batch; a metric that ``metrics.config`` declares keeps
the type, unit and dimension names that are declared there, whatever the handler says.
"""

from __future__ import annotations

import functools
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from mlserve.core.job import Batch, Job
from mlserve.core.messages import BatchReport, InferenceRequest, InferenceResponse
from mlserve.core.metrics import MAX_SERIES, Histogram
from mlserve.core.model import ModelSpec
from mlserve.errors import ErrorKind, ServeError
from mlserve.protocols.metrics_config import HOSTNAME, Declared, MetricsConfig

log = logging.getLogger(__name__)
jobs = logging.getLogger("org.pytorch.serve.wlm.ContinuousBatching")

REQUESTS, LATENCY, QUEUED = (
    "ts_inference_requests_total",
    "ts_inference_latency_microseconds",
    "ts_queue_latency_microseconds",
)
LEGACY = frozenset({REQUESTS, LATENCY, QUEUED})  # what mode "legacy" shows Prometheus; all else goes to lines
# The Java client's default buckets.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

# Where a handler's report came from (``wire.payload.MetricRecord.origin``), and so which dimensions it gets.
EXACT, OF_MODEL, OF_ERROR = 0, 1, 2
_DEFAULTS: dict[int, tuple[tuple[str, str], ...]] = {
    EXACT: (),
    OF_MODEL: (("ModelName", ""), ("Level", "Model")),  # the empty one stands for the model's name
    OF_ERROR: (("Level", "Error"),),
}
NO_REQUEST = "null"  # as TorchServe writes it


class Family:
    """One metric: its series by label values, if Prometheus is to see it."""

    __slots__ = ("declared", "histograms", "scraped", "values")

    def __init__(self, declared: Declared, scraped: bool) -> None:
        self.declared = declared
        self.scraped = scraped
        self.values: dict[tuple[str, ...], float] = {}
        self.histograms: dict[tuple[str, ...], Histogram] = {}

    def update(self, labels: tuple[str, ...], value: float) -> None:
        """Add to a counter, set a gauge, observe in a histogram. Raises ValueError for a counter that would sink."""
        kind = self.declared.kind
        if kind == "gauge":
            self.values[labels] = value
        elif kind == "counter":
            if value < 0:
                raise ValueError("a counter only rises")
            self.values[labels] = self.values.get(labels, 0.0) + value
        else:
            if labels not in self.histograms:
                self.histograms[labels] = Histogram(BOUNDS)
            self.histograms[labels].observe(value)

    def full(self, labels: tuple[str, ...]) -> bool:
        """Whether there are too many series for one more."""
        known = self.values if self.declared.kind != "histogram" else self.histograms
        return len(known) >= MAX_SERIES and labels not in known

    def copy(self) -> Family:
        """The numbers of this moment, for somebody who reads them in another thread."""
        twin = Family(self.declared, self.scraped)
        twin.values = self.values.copy()
        twin.histograms = {labels: histogram.copy() for labels, histogram in self.histograms.items()}
        return twin


class TorchServeMetrics:
    """See ``core.observing.Observer``.

    ``write(text, of_model)`` takes the lines of the modes ``log`` and ``legacy``; ``of_model`` tells a handler's report
    from the server's own. ``flush`` is called behind those of a batch, before its answers.
    """

    def __init__(
        self,
        config: MetricsConfig,
        *,
        mode: str = "prometheus",
        auto_detect: bool = False,
        hostname: str,
        write: Callable[[str, bool], object],
        flush: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.hostname = hostname
        self._mode = mode
        self._auto_detect = auto_detect
        self._write = write
        self._flush = flush
        self._clock = clock
        self._server = {name: self._family(declared) for name, declared in config.server.items()}
        self._model = {name: self._family(declared) for name, declared in config.model.items()}
        self._host = ("Host", hostname)
        self._complained: set[str] = set()

    def _family(self, declared: Declared) -> Family:
        return Family(declared, self._mode == "prometheus" or (self._mode == "legacy" and declared.name in LEGACY))

    def families(self) -> list[Family]:
        """What Prometheus may see now, copied: the server's metrics and those of handlers."""
        found = [*self._server.values(), *self._model.values()]
        return [family.copy() for family in found if family.scraped]

    # -- Observer -----------------------------------------------------------------------------------------------------

    def asked(self, spec: ModelSpec, request: InferenceRequest) -> None:
        """See ``Observer``."""
        self.server(REQUESTS, (spec.key.name, request.version or "default", self.hostname), 1.0)

    def answered(self, job: Job, queue_seconds: float, total_seconds: float) -> None:
        """See ``Observer``. Counts requests that a handler has answered, with whatever status.

        Of a continuous batch TorchServe's log also tells which job's client has gone.
        """
        if not isinstance(job.result, InferenceResponse):
            gone = job.result is not None and job.result.kind is ErrorKind.CANCELLED
            if gone and job.queue.spec.continuous_batching:
                jobs.info("Connection to client got closed; Removing job: %s", job.request.request_id)
            return
        labels = (job.queue.spec.key.name, job.request.version or "default", self.hostname)
        self.server(LATENCY, labels, round(total_seconds * 1e6, 3))
        self.server(QUEUED, labels, round(queue_seconds * 1e6, 3))
        self.server("QueueTime", self._host, round(queue_seconds * 1e3, 3))

    def computed(
        self,
        spec: ModelSpec,
        batch: Batch,
        results: Sequence[InferenceResponse | ServeError],
        report: BatchReport,
    ) -> None:
        """See ``Observer``."""
        self.server("WorkerThreadTime", self._host, round(report.transfer * 1e3, 3))
        ids = ",".join(job.request.request_id for job in batch.jobs)
        for record in report.metrics:
            self._report(spec, record, ids)
        if report.metrics:
            self._flush()

    def loaded(self, spec: ModelSpec, worker_id: int, seconds: float, metrics: Sequence[Any]) -> None:
        """See ``Observer``."""
        name, version = spec.key
        self.server("WorkerLoadTime", (f"W-{worker_id}-{name}_{version}", *self._host), round(seconds * 1e3, 3))
        self._loading(spec, metrics)

    def load_failed(self, spec: ModelSpec, metrics: Sequence[Any]) -> None:
        """See ``Observer``."""
        self._loading(spec, metrics)

    def _loading(self, spec: ModelSpec, metrics: Sequence[Any]) -> None:
        ids = str(uuid.uuid4())  # no request caused it, but the lines of one load belong together
        for record in metrics:
            self._report(spec, record, ids)

    def http_answer(self, status: int) -> None:
        """One answer over HTTP, of any API."""
        if (name := _BY_HUNDREDS.get(status // 100)) is not None:
            self.server(name, self._host, 1.0)

    # -- updates ------------------------------------------------------------------------------------------------------

    def server(self, name: str, labels: tuple[str, ...], value: float) -> None:
        """Update a metric of the server's own, unless ``metrics.config`` leaves it out. The last label is the host."""
        family = self._server.get(name)
        if family is not None:
            self._update(family, labels, value, None)

    def _report(self, spec: ModelSpec, record: Any, ids: str) -> None:
        """A handler's report. ``ids`` are the requests of its batch."""
        dimensions = list(record.dimensions)
        names = {name for name, _ in dimensions}
        for name, value in _DEFAULTS[record.origin]:
            if name not in names:
                dimensions.append((name, value or spec.key.name))
        request = record.request_id or (ids if record.origin == OF_MODEL else NO_REQUEST)
        family = self._model.get(record.name)
        if family is None:
            if not self._auto_detect or len(self._model) >= MAX_SERIES:
                return
            labels = (*(name for name, _ in dimensions), HOSTNAME)
            family = self._family(Declared(record.name, record.unit, record.kind, labels))
            self._model[record.name] = family
        self._update(family, (*(text for _, text in dimensions), self.hostname), record.value, request)

    def _update(self, family: Family, labels: tuple[str, ...], value: float, request: str | None) -> None:
        declared = family.declared
        if not family.scraped:
            self._write(line(declared, labels, value, self._clock(), request), request is not None)
            return
        if len(labels) != len(declared.labels):
            self._complain(declared, f"it has the dimensions {list(declared.labels)} and got {len(labels)} values")
        elif family.full(labels):
            self._complain(declared, f"it has {MAX_SERIES} series already")
        else:
            try:
                family.update(labels, value)
            except ValueError as error:
                self._complain(declared, str(error))

    def _complain(self, declared: Declared, why: str) -> None:
        """Once per metric and reason: a handler would repeat it with each batch."""
        text = f"metric {declared.name} is not updated: {why}"
        if text not in self._complained and len(self._complained) < MAX_SERIES:
            self._complained.add(text)
            log.warning(text)


_BY_HUNDREDS = {2: "Requests2XX", 4: "Requests4XX", 5: "Requests5XX"}


def line(declared: Declared, labels: tuple[str, ...], value: float, now: float, request: str | None) -> str:
    """``Name.Unit:value|#Level:Host|#hostname:h,timestamp:1``; with ``requestID`` for what a handler reported."""
    who = "" if request is None else f",requestID:{request}"
    return f"{declared.name}.{declared.unit}:{float(value)!r}|#{_labelled(declared, labels)}{who},timestamp:{int(now)}"


@functools.lru_cache(4 * MAX_SERIES)  # putting it together took half of a line's time, and it hardly ever changes
def _labelled(declared: Declared, labels: tuple[str, ...]) -> str:
    dimensions = ",".join([f"{name}:{text}" for name, text in zip(declared.labels[:-1], labels[:-1], strict=False)])
    dimensions = dimensions.replace("\n", "\\n")  # a handler may have put what a client sent into it
    return f"{dimensions}|#hostname:{labels[-1]}"
