"""Numbers about a model version, counted where they happen and formatted by somebody else.

The hot path must not pay for a metrics library: a labelled ``prometheus_client`` histogram costs about 2 us per
``observe``, a bisect and three additions 0.2 us. So the core counts into plain lists and dicts here, and
``mlserve.rest.metrics`` turns them into Prometheus families when somebody scrapes.

Everything runs on the event loop; nothing here locks. Times are in seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final, NamedTuple

from mlserve.core.messages import InferenceResponse
from mlserve.errors import ErrorKind, ServeError

OK: Final = "ok"  # an answer below 400
REFUSED: Final = "refused"  # the handler refused this item with a 4xx of its own choice

# Every value that the ``status`` of a request takes; all of them are present with 0 before the first request.
STATUSES: Final[tuple[str, ...]] = (OK, REFUSED, *(kind.value for kind in ErrorKind))

# From the 0.1 ms of a no-op handler to the minutes of a large generation; three per decade.
LATENCY_BOUNDS: Final[tuple[float, ...]] = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0,
)  # fmt: skip
# A handler's histogram may be of anything: milliseconds, bytes, shares.
CUSTOM_BOUNDS: Final[tuple[float, ...]] = tuple(digit * 10.0**power for power in range(-3, 7) for digit in (1, 2.5, 5))
BATCH_BOUNDS: Final[tuple[float, ...]] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

# A handler that puts a request id into a dimension must not be able to fill the memory of the server.
MAX_SERIES: Final = 1000


def status_of(result: InferenceResponse | ServeError) -> str:
    """Name the ending of a request, for :meth:`ModelStats.request_done`: one of :data:`STATUSES`."""
    if isinstance(result, InferenceResponse):
        if result.status < 400:
            return OK
        return REFUSED if result.status < 500 else ErrorKind.HANDLER_FAILED.value
    if result.kind is ErrorKind.HANDLER_FAILED and result.status is not None and result.status < 500:
        return REFUSED
    return result.kind.value


class Histogram:
    """Counts by upper bound. ``counts`` has one more element than ``bounds``: what lies above the last one.

    A value equal to a bound belongs to that bound's bucket, as Prometheus' ``le`` demands.
    """

    __slots__ = ("_at", "_counts", "above", "bounds", "run", "total", "up_to")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        if not bounds or list(bounds) != sorted(set(bounds)):
            raise ValueError(f"histogram bounds must rise strictly, got {bounds}")
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0  # sum of all values
        self.run = 0  # values that are not in ``counts`` yet: the last ones, all of one bucket
        self._at = 0  # which is this one, with values between these two: the next is often of the same
        self.above = -inf
        self.up_to = bounds[0]

    def observe(self, value: float) -> None:
        """Count one value."""
        if not self.above < value <= self.up_to:
            self.turn_to(value)
        self.run += 1
        self.total += value

    def turn_to(self, value: float) -> None:
        """Make the bucket of ``value`` the one to count in."""
        self._counts[self._at] += self.run
        self.run = 0
        bounds = self.bounds
        self._at = at = bisect_left(bounds, value)
        self.above = bounds[at - 1] if at else -inf
        self.up_to = bounds[at] if at < len(bounds) else inf

    @property
    def counts(self) -> list[int]:
        """How many values were observed, by bucket."""
        counts = self._counts.copy()
        counts[self._at] += self.run
        return counts

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def copy(self) -> Histogram:
        """The numbers of this moment, for somebody who reads them in another thread."""
        twin = Histogram(self.bounds)
        twin._counts, twin.total = self.counts, self.total
        return twin

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound as text, how many values at or below it), ending with ``+Inf``."""
        rows: list[tuple[str, float]] = []
        running = 0
        counts = self.counts
        for bound, count in zip(self.bounds, counts, strict=False):
            running += count
            rows.append((repr(float(bound)), running))
        rows.append(("+Inf", running + counts[-1]))
        return rows


class Series(NamedTuple):
    """Identity of one number that a handler reports. ``kind`` is ``counter``, ``gauge`` or ``histogram``."""

    name: str
    unit: str
    kind: str
    dimensions: tuple[tuple[str, str], ...]


class CustomMetrics:
    """What handlers report through ``context.metrics``: counters add up, gauges keep their last value."""

    __slots__ = ("dropped", "histograms", "values")

    def __init__(self) -> None:
        self.values: dict[Series, float] = {}
        self.histograms: dict[Series, Histogram] = {}
        self.dropped = 0  # reports not kept because there were MAX_SERIES series already

    def add(
        self, name: str, value: float, unit: str = "", kind: str = "gauge", dimensions: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Take one report. ``dimensions`` are (name, value) pairs; their order does not matter."""
        series = Series(name, unit, kind, tuple(sorted((key, text) for key, text in dimensions)))
        known = self.values.get(series)
        if known is not None:
            self.values[series] = known + value if kind == "counter" else value
        elif series in self.histograms:
            self.histograms[series].observe(value)
        elif len(self.values) + len(self.histograms) >= MAX_SERIES:
            self.dropped += 1
        elif kind == "histogram":
            self.histograms[series] = Histogram(CUSTOM_BOUNDS)
            self.histograms[series].observe(value)
        else:
            self.values[series] = value

    def extend(self, reports: Iterable[Any]) -> None:
        """Take the reports of a finished batch (``BatchReport.metrics``)."""
        for report in reports:
            self.add(report.name, report.value, report.unit, report.kind, report.dimensions)

    def copy(self) -> CustomMetrics:
        """The numbers of this moment, for somebody who reads them in another thread."""
        twin = CustomMetrics()
        twin.values, twin.dropped = self.values.copy(), self.dropped
        twin.histograms = {series: histogram.copy() for series, histogram in self.histograms.items()}
        return twin


class HttpCounts:
    """Answers over HTTP by hundreds of their status, of all APIs together. ``on_answer`` hears of each one."""

    __slots__ = ("_answers", "_ok", "on_answer")

    def __init__(self) -> None:
        self._answers = [0] * 10
        self._ok = 0  # of status 200, not in the list
        self.on_answer: Callable[[int], object] | None = None

    def count(self, status: int) -> None:
        """Count one answer."""
        if status == 200:
            self._ok += 1
        else:
            self._answers[status // 100] += 1
        if self.on_answer is not None:
            self.on_answer(status)

    @property
    def answers(self) -> list[int]:
        """How many answers there were, by hundreds of their status."""
        answers = self._answers.copy()
        answers[2] += self._ok
        return answers


class ModelStats:
    """The counters of one model version. Plain attributes are meant to be incremented in place."""

    __slots__ = (
        "_ok",
        "_others",
        "batch_size",
        "cancelled",
        "chunks",
        "custom",
        "expired",
        "inference_seconds",
        "queue_seconds",
        "rejections",
        "request_seconds",
        "retries",
    )

    def __init__(self) -> None:
        self._others: dict[str, int] = dict.fromkeys(STATUSES, 0)  # requests that ended otherwise than ``OK``
        self._ok = 0  # those that did
        self.rejections: dict[str, int] = {ErrorKind.OVERLOADED.value: 0, ErrorKind.NOT_READY.value: 0}
        self.queue_seconds = Histogram(LATENCY_BOUNDS)
        self.inference_seconds = Histogram(LATENCY_BOUNDS)
        self.request_seconds = Histogram(LATENCY_BOUNDS)
        self.batch_size = Histogram(BATCH_BOUNDS)
        self.chunks = 0  # pieces of streamed answers
        self.cancelled = 0  # the client was gone, or asked
        self.expired = 0  # the deadline passed while the request waited in the queue
        self.retries = 0  # requests sent again because their worker died
        self.custom = CustomMetrics()

    def request_done(self, status_kind: str, queue_seconds: float, total_seconds: float) -> None:
        """Count a request that has ended. ``status_kind`` is one of :data:`STATUSES`, see :func:`status_of`."""
        # Histogram.observe by hand: in Python two method calls would be a third of this function's time.
        if status_kind is OK:
            self._ok += 1
        else:
            self._others[status_kind] += 1
        waited, took = self.queue_seconds, self.request_seconds
        if not waited.above < queue_seconds <= waited.up_to:
            waited.turn_to(queue_seconds)
        waited.run += 1
        waited.total += queue_seconds
        if not took.above < total_seconds <= took.up_to:
            took.turn_to(total_seconds)
        took.run += 1
        took.total += total_seconds

    @property
    def requests(self) -> dict[str, int]:
        """How many requests ended with each of :data:`STATUSES`."""
        return {**self._others, OK: self._others[OK] + self._ok}

    def batch_done(self, size: int, inference_seconds: float) -> None:
        """Count a batch that came back from a worker; ``inference_seconds`` is the handler's time for all of it."""
        self.batch_size.observe(size)
        self.inference_seconds.observe(inference_seconds)

    def rejected(self, reason: str) -> None:
        """Count a request that was never queued; ``reason`` is an :class:`ErrorKind` value, as ``overloaded``.

        Not to be followed by :meth:`request_done`: it counts in ``requests`` too, but in no latency histogram.
        """
        self._others[reason] += 1
        self.rejections[reason] = self.rejections.get(reason, 0) + 1

    def copy(self) -> ModelStats:
        """The numbers of this moment, for somebody who reads them in another thread."""
        twin = ModelStats()
        twin._others, twin.rejections = self.requests, self.rejections.copy()
        twin.queue_seconds, twin.inference_seconds = self.queue_seconds.copy(), self.inference_seconds.copy()
        twin.request_seconds, twin.batch_size = self.request_seconds.copy(), self.batch_size.copy()
        twin.chunks, twin.cancelled, twin.expired, twin.retries = (
            self.chunks,
            self.cancelled,
            self.expired,
            self.retries,
        )
        twin.custom = self.custom.copy()
        return twin
