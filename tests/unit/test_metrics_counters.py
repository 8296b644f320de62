"""The counters of a model version: what they count, and that they stay bounded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.core.messages import InferenceResponse
from mlserve.core.metrics import MAX_SERIES, STATUSES, CustomMetrics, Histogram, ModelStats, status_of
from mlserve.errors import ErrorKind, InvalidInput, NoWorker, QueueFull, ServeError


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (InferenceResponse(b""), "ok"),
        (InferenceResponse(b"", status=302), "ok"),
        (InferenceResponse(b"", status=404), "refused"),
        (InferenceResponse(b"", status=507), "handler_failed"),
        (ServeError("", kind=ErrorKind.HANDLER_FAILED), "handler_failed"),
        (ServeError("", kind=ErrorKind.HANDLER_FAILED, status=418), "refused"),
        (ServeError("", kind=ErrorKind.HANDLER_FAILED, status=599), "handler_failed"),
        (ServeError("", kind=ErrorKind.WORKER_DIED), "worker_died"),
        (InvalidInput("", status=422), "invalid_input"),
    ],
)
def test_ending_is_counted_as_another(result: InferenceResponse | ServeError, status: str) -> None:
    assert status_of(result) == status
    assert status in STATUSES


@given(st.lists(st.floats(0, 200)))
def test_histogram_loses_a_value_or_puts_it_in_the_wrong_bucket(values: list[float]) -> None:
    histogram = Histogram((0.5, 1.0, 100.0))
    for value in values:
        histogram.observe(value)
    rows = histogram.cumulative()
    expected = [sum(value <= bound for value in values) for bound in (0.5, 1.0, 100.0)]
    assert rows == [(name, count) for name, count in zip(("0.5", "1.0", "100.0"), expected, strict=True)] + [
        ("+Inf", len(values))
    ]
    assert histogram.count == len(values)
    assert histogram.total == pytest.approx(sum(values))


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0)])
def test_histogram_takes_bounds_that_do_not_rise(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        Histogram(bounds)


def test_request_is_counted_twice_or_not_at_all() -> None:
    stats = ModelStats()
    stats.request_done("ok", 0.001, 0.02)
    stats.request_done("timeout", 1.0, 120.5)
    stats.rejected(QueueFull.kind.value)
    stats.rejected(NoWorker.kind.value)
    counted = {status: count for status, count in stats.requests.items() if count}
    assert counted == {"ok": 1, "timeout": 1, "overloaded": 1, "not_ready": 1}
    assert stats.rejections == {"overloaded": 1, "not_ready": 1}
    assert (stats.queue_seconds.count, stats.request_seconds.count) == (2, 2)
    assert stats.queue_seconds.cumulative()[3] == ("0.001", 1)
    assert stats.request_seconds.counts[-1] == 1  # above the last bound
    assert stats.request_seconds.total == pytest.approx(120.52)


def test_batch_of_8_is_counted_in_another_bucket() -> None:
    stats = ModelStats()
    stats.batch_done(8, 0.25)
    assert dict(stats.batch_size.cumulative()) | {"4.0": 0, "8.0": 1} == dict(stats.batch_size.cumulative())
    assert stats.inference_seconds.total == 0.25


def test_copy_follows_the_original() -> None:
    stats = ModelStats()
    stats.custom.add("h", 1.0, kind="histogram")
    twin = stats.copy()
    stats.request_done("ok", 1, 1)
    stats.batch_done(1, 1)
    stats.rejected("overloaded")
    stats.chunks += 1
    stats.custom.add("g", 2.0)
    stats.custom.add("h", 1.0, kind="histogram")
    assert (sum(twin.requests.values()), twin.rejections["overloaded"], twin.chunks) == (0, 0, 0)
    assert (twin.queue_seconds.count, twin.batch_size.count) == (0, 0)
    assert twin.custom.values == {}
    assert [histogram.count for histogram in twin.custom.histograms.values()] == [1]


def test_handlers_counter_is_overwritten_or_its_gauge_added_up() -> None:
    custom = CustomMetrics()
    for value in (2.0, 3.0):
        custom.add("seen", value, "count", "counter", [("b", "2"), ("a", "1")])
        custom.add("load", value, "percent", "gauge")
    report = SimpleNamespace(name="seen", value=1.0, unit="count", kind="counter", dimensions=[("a", "1"), ("b", "2")])
    custom.extend([report])
    assert {series.name: value for series, value in custom.values.items()} == {"seen": 6.0, "load": 3.0}


def test_handler_that_labels_by_request_fills_the_memory() -> None:
    custom = CustomMetrics()
    for number in range(MAX_SERIES + 5):
        custom.add("seen", 1, dimensions=[("request", str(number))])
        custom.add("took", 1, kind="histogram", dimensions=[("request", str(number))])
    assert len(custom.values) + len(custom.histograms) == MAX_SERIES
    assert custom.dropped == MAX_SERIES + 10
    custom.add("seen", 7, dimensions=[("request", "0")])
    assert next(iter(custom.values.values())) == 7
