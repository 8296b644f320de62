"""Numbers a handler reports reach the wire with TorchServe's names, units and types."""

import enum
from types import SimpleNamespace

import pytest

from mlserve.wire.payload import MetricRecord
from mlserve.worker.metric_types import MetricsCacheKeyError, MetricsCacheTypeError
from mlserve.worker.metrics import Metrics


class MetricTypes(enum.Enum):
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda m: m.add_counter("n", 2, 1), MetricRecord("n", 2.0, "Count", "counter", [], 1)),
        (lambda m: m.add_time("n", 3, None, "s"), MetricRecord("n", 3.0, "s", "gauge")),
        (lambda m: m.add_time("n", 3), MetricRecord("n", 3.0, "ms", "gauge")),
        (lambda m: m.add_size("n", 4, unit="GB"), MetricRecord("n", 4.0, "GB", "gauge")),
        (lambda m: m.add_percent("n", 50), MetricRecord("n", 50.0, "Percent", "gauge")),
        (lambda m: m.add_metric("n", 1, "widgets"), MetricRecord("n", 1.0, "widgets", "counter")),
        (lambda m: m.add_metric("n", 1), MetricRecord("n", 1.0, "unit", "counter")),
        (
            lambda m: m.add_metric("n", 1, "", 0, [("a", 1)], MetricTypes.HISTOGRAM),
            MetricRecord("n", 1.0, "unit", "histogram", [("a", "1")], 0),
        ),
        (
            lambda m: m.add_counter("n", 1, dimensions=[SimpleNamespace(name="d", value="v")]),
            MetricRecord("n", 1.0, "Count", "counter", [("d", "v")]),
        ),
        (lambda m: m.add_error("n", "boom"), MetricRecord("n", 1.0, "Count", "counter", [("error", "boom")])),
    ],
)
def test_each_call_becomes_one_record(call, expected):
    units = {"ms": "Milliseconds", "s": "Seconds", "GB": "Gigabytes"}
    expected.unit = units.get(expected.unit, expected.unit)
    metrics = Metrics()
    call(metrics)
    [record] = metrics.take()
    record.origin = 0  # of the dimensions that the server adds, see test_metrics_torchserve_names.py
    assert record == expected
    assert metrics.take() == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: m.add_counter("", 1), "needs a name"),
        (lambda m: m.add_counter("n", "many"), "could not convert"),
        (lambda m: m.add_time("n", 1, unit="hours"), "ms, s, got 'hours'"),
        (lambda m: m.add_size("n", 1, unit="TB"), "got 'TB'"),
        (lambda m: m.add_counter("n", 1, dimensions=["x"]), "dimension"),
    ],
)
def test_wrong_report_is_an_error_and_leaves_no_record(call, said):
    metrics = Metrics()
    with pytest.raises(ValueError, match=said):
        call(metrics)
    assert metrics.take() == []


def test_declared_metric_takes_values_in_the_order_of_its_dimensions():
    metrics = Metrics()
    metrics.add_metric_to_cache("n", "ms", ["Model", "Level"], MetricTypes.HISTOGRAM)
    metric = metrics.get_metric("n", "histogram")
    metric.add_or_update(1.5, ["a", "b"])
    metric.update(2)
    first, second = metrics.take()
    assert first.dimensions == [("Model", "a"), ("Level", "b")]
    assert (first.unit, first.kind, second.value) == ("Milliseconds", "histogram", 2.0)
    assert second.dimensions == []
    with pytest.raises(MetricsCacheKeyError, match="COUNTER' and name 'n'"):
        metrics.get_metric("n")


@pytest.mark.parametrize(("value", "dimensions"), [(1.0, ["only one"]), (1.0, None), (-1.0, ["a", "b"])])
def test_report_that_cannot_be_is_logged_and_does_not_fail_the_request(value, dimensions, caplog):
    metrics = Metrics()
    metrics.add_metric_to_cache("n", "ms", ["Model", "Level"]).add_or_update(value, dimensions)
    assert metrics.take() == []
    assert "Metric n is not updated" in caplog.text


@pytest.mark.parametrize("kind", ["summary", None, {"key": 42}])
def test_type_that_is_none_is_an_error_with_torchserves_text(kind):
    with pytest.raises(MetricsCacheTypeError, match="`metric_type` must be a MetricTypes enum"):
        Metrics().add_metric("n", 1, metric_type=kind)
