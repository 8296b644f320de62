"""``ts.metrics``: what a handler imports are the classes that ``context.metrics`` works with."""

import json

import pytest

from mlserve.compat.ts.metrics import (
    caching_metric,
    dimension,
    metric,
    metric_abstract,
    metric_cache_abstract,
    metric_encoder,
    metric_type_enum,
    metrics_store,
    process_memory_metric,
    system_metrics,
    unit,
)
from mlserve.compat.ts.metrics import metric_cache_errors as errors
from mlserve.compat.ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from mlserve.wire.payload import Load, MetricDeclaration, MetricRecord
from mlserve.worker.caching_metric import current
from mlserve.worker.context import make_context
from mlserve.worker.metrics import Metrics, take_metrics

COUNTER, GAUGE, HISTOGRAM = metric_type_enum.MetricTypes
YAML = """
model_metrics:
  counter:
    - {name: Calls, unit: count, dimensions: [ModelName]}
  gauge:
    - {name: Used, unit: MB, dimensions: []}
"""


@pytest.fixture
def context():
    """A worker's context; its sink is put away again."""
    declared = [MetricDeclaration("Used", "MB", "gauge", ["Level"])]
    yield make_context(Load("m", "1.0", "", "h", {}, {}, metrics=declared))
    current.sink = None


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "metrics.yaml"
    path.write_text(YAML)
    return str(path)


def test_metric_that_metrics_config_declares_must_be_declared_again(context):
    context.metrics.get_metric("Used", GAUGE).add_or_update(5, ["Host"])
    context.metrics.add_size("Used", 6, unit="GB", dimensions=[dimension.Dimension("Level", "Disk")])
    one, two = take_metrics(context)
    assert one == MetricRecord("Used", 5.0, "Megabytes", "gauge", [("Level", "Host")])
    assert (two.unit, two.origin) == ("Megabytes", 1), "the declared unit wins"


def test_report_about_one_request_does_not_carry_its_id(context):
    from mlserve.handler import RequestInfo

    context.begin([RequestInfo("a"), RequestInfo("b")])
    context.metrics.add_counter("n", 1, 1)
    context.metrics.add_counter("n", 1)
    context.metrics.add_counter("n", 1, "not an index")
    assert [record.request_id for record in take_metrics(context)] == ["b", "", ""]


def test_metrics_that_a_handler_makes_itself_are_lost(context, file):
    metric.Metric("Own", 1, "ms", [dimension.Dimension("A", "b")], "rid").update(7)
    cache = MetricsCacheYamlImpl(file)
    cache.initialize_cache()
    cache.get_metric("Calls").add_or_update(2, ["m"])
    assert take_metrics(context) == [
        MetricRecord("Own", 7.0, "Milliseconds", "counter", [("A", "b")], request_id="rid"),
        MetricRecord("Calls", 2.0, "Count", "counter", [("ModelName", "m")]),
    ]


def test_without_a_worker_reports_vanish(file, caplog):
    caplog.set_level("INFO")
    cache = MetricsCacheYamlImpl(file)
    cache.initialize_cache()
    assert cache.cache_keys() == ["counter:Calls", "gauge:Used"]
    cache.add_time("Took", 17, unit="s", dimensions=[dimension.Dimension("ModelName", "x")])
    cache.set_request_ids({0: "a", 1: "b"})
    cache.add_percent("Share", 11, 1, metric_type=HISTOGRAM)
    cache.add_error("Bad", 2)
    texts = [record.message for record in caplog.records]
    assert texts[0].startswith("[METRICS]Took.Seconds:17|#ModelName:x,Level:Error|#type:GAUGE|#hostname:")
    assert texts[1].startswith("[METRICS]Share.Percent:11|#ModelName:None,Level:Model|#type:HISTOGRAM|#hostname:")
    assert texts[1].endswith(",b")
    assert texts[2].startswith("[METRICS]Bad.unit:2|#Level:Error|#type:COUNTER|#hostname:")


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (None, errors.MetricsCacheIOError, "Error reading file"),
        ("a: [", errors.MetricsCachePyYamlError, "Error parsing file"),
        ("{}", errors.MetricsCacheKeyError, "'model_metrics' key not found"),
        ("model_metrics:", errors.MetricsCacheValueError, "Missing `model_metrics`"),
        ("model_metrics: {summary: []}", errors.MetricsCacheKeyError, "Invalid metric type"),
        ("model_metrics: {gauge: [{name: A}]}", errors.MetricsCacheKeyError, "Key not found in cache spec: 'unit'"),
    ],
)
def test_file_that_cannot_be_used_raises_another_class(tmp_path, text, error, said):
    path = tmp_path / "m.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=said):
        MetricsCacheYamlImpl(str(path)).initialize_cache()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: m.add_metric_to_cache(42, "ms"), "`metric_name` must be a str"),
        (lambda m: m.add_metric_to_cache("a", ["ms"], [], {"key": 1}), "`unit` must be a str"),
        (lambda m: m.add_metric_to_cache("a", "ms", "Model"), "`dimension_names` should be a list"),
        (lambda m: m.get_metric("a", None), "`metric_type` must be a MetricTypes enum"),
        (lambda m: m.get_metric(1), "`metric_name` must be a str"),
    ],
)
def test_argument_of_a_wrong_type_is_taken(call, said):
    with pytest.raises(errors.MetricsCacheTypeError, match=said):
        call(Metrics())


def test_names_of_other_modules_are_other_classes(capsys):
    assert metric_abstract.MetricAbstract is caching_metric.CachingMetric
    assert metric_cache_abstract.MetricCacheAbstract is Metrics
    assert unit.Units().units["kB"] == "Kilobytes"
    assert issubclass(metrics_store.MetricsStore, Metrics)
    shown = metric.Metric("n", 2, None, [dimension.Dimension("A", "b")])
    assert str(shown).startswith("n.unit:2|#A:b|#hostname:")
    assert json.loads(json.dumps(shown, cls=metric_encoder.MetricEncoder))["Dimensions"] == [
        {"Name": "A", "Value": "b"}
    ]


def test_collector_of_a_users_own_has_nothing_to_build_on(caplog):
    caplog.set_level("INFO")
    system_metrics.system_metrics.clear()
    system_metrics.collect_all(system_metrics)
    names = [one.name for one in system_metrics.system_metrics]
    assert len(names) == len(set(names)) == 7
    assert caplog.records[-1].message == ""
    assert process_memory_metric.get_cpu_usage("1073741824") == 0
