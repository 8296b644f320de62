"""metrics.yaml: what it declares is found, and a file that cannot be used ends the start with its reason."""

import pytest

from mlserve.errors import SettingError
from mlserve.protocols.metrics_config import Declared, read_metrics_config
from mlserve.rest.ts_metrics import check_metrics
from mlserve.settings.tree import MetricsSettings

SERVER = [
    *("Requests2XX", "Requests4XX", "Requests5XX"),
    *("ts_inference_requests_total", "ts_inference_latency_microseconds", "ts_queue_latency_microseconds"),
    *("QueueTime", "WorkerThreadTime", "WorkerLoadTime"),
    *("CPUUtilization", "MemoryUsed", "MemoryAvailable", "MemoryUtilization"),
    *("DiskUsage", "DiskUtilization", "DiskAvailable"),
    *("GPUMemoryUtilization", "GPUMemoryUsed", "GPUUtilization"),
]

VALID = """
dimensions:
  - &model "ModelName"
  - &level "Level"
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [*level, Hostname]}
    - {name: Total, unit: Count, dimensions: [*model, ModelVersion, Hostname]}
  gauge:
    - {name: QueueTime, unit: Milliseconds, dimensions: [*level, Hostname]}
model_metrics:
  gauge:
    - {name: HandlerTime, unit: ms, dimensions: [*model, *level]}
  histogram:
    - {name: Sizes, unit: kB, dimensions: []}
"""


def read(tmp_path, text):
    file = tmp_path / "metrics.yaml"
    file.write_text(text)
    return read_metrics_config(str(file))


def test_default_set_lacks_a_metric_that_dashboards_know():
    config = read_metrics_config()
    assert sorted(config.server) == sorted(SERVER)
    assert config.server["WorkerLoadTime"] == Declared(
        "WorkerLoadTime", "Milliseconds", "gauge", ("WorkerName", "Level", "Hostname")
    )
    assert config.server["ts_inference_requests_total"].labels == ("model_name", "model_version", "hostname")
    assert {one.kind for name, one in config.server.items() if name.startswith(("ts_", "Requests"))} == {"counter"}
    assert config.server["GPUUtilization"].labels == ("Level", "DeviceId", "Hostname")
    assert config.model["HandlerTime"] == Declared("HandlerTime", "ms", "gauge", ("ModelName", "Level", "Hostname"))
    assert sorted(config.model) == ["HandlerTime", "PredictionTime"]


def test_declarations_are_read_otherwise_than_written(tmp_path):
    config = read(tmp_path, VALID)
    assert config.server["Total"] == Declared("Total", "Count", "counter", ("ModelName", "ModelVersion", "Hostname"))
    assert list(config.server) == ["Requests2XX", "Total", "QueueTime"]
    assert config.model["Sizes"] == Declared("Sizes", "kB", "histogram", ("Hostname",))


def test_metric_without_dimensions_is_refused(tmp_path):
    text = "ts_metrics:\n  counter:\n    - name: Total\n      unit: Count\n      dimensions:\n"
    config = read(tmp_path, text)
    assert config.server["Total"].labels == ()
    assert config.model == {}


def test_later_declaration_of_a_name_does_not_count(tmp_path, caplog):
    item = "{name: A, unit: Count, dimensions: []}"
    config = read(tmp_path, f"model_metrics:\n  counter: [{item}]\n  gauge: [{item}]\n")
    assert config.model["A"].kind == "gauge"
    assert "declares A twice" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ts_metrics:\n  counter:\n    - {name: A, unit: Count, dimensions: [*nowhere]}", "not valid YAML.*nowhere"),
        ("ts_metrics:\n  counter:\n    - {unit: Count}", r"ts_metrics.counter\[0\]: name cannot be empty"),
        ("ts_metrics:\n  counter:\n    - {name: '', unit: Count}", "name cannot be empty"),
        ("model_metrics:\n  gauge:\n    - {name: A}", r"model_metrics.gauge\[0\]: unit cannot be empty"),
        ("model_metrics:\n  gauge:\n    - {name: A, unit: ''}", "unit cannot be empty"),
        ("model_metrics:\n  gauge:\n    - {name: A, unit: ms, dims: []}", "unknown key 'dims'"),
        ("model_metrics:\n  gauge:\n    - {name: A, unit: ms, dimensions: Level}", "dimensions must be a list"),
        ("model_metrics:\n  gauge:\n    - {name: A, unit: ms, dimensions: [L, L]}", "there twice"),
        ("model_metrics:\n  gauge: {name: A}", "model_metrics.gauge must be a list"),
        ("model_metrics:\n  summary: []", "model_metrics.summary: unknown type"),
        ("model_metrics: [1]", "model_metrics must be a mapping"),
        ("model_metrix: {}", "unknown key 'model_metrix'"),
        ("- 1", "it must be a mapping"),
        ("", "it must be a mapping"),
    ],
)
def test_file_that_declares_nonsense_is_accepted(tmp_path, text, said):
    with pytest.raises(SettingError, match=f"metrics.config: .*metrics.yaml.*{said}"):
        read(tmp_path, text)


def test_missing_file_is_no_error(tmp_path):
    with pytest.raises(SettingError, match=r"metrics\.config: .*none\.yaml cannot be read: No such file"):
        check_metrics(MetricsSettings(families="both", config=str(tmp_path / "none.yaml")))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (MetricsSettings(mode="log"), "metrics.mode is log, but metrics.families is mlserve"),
        (MetricsSettings(config="x.yaml"), "metrics.config declares TorchServe's metrics"),
    ],
)
def test_settings_that_do_nothing_together_are_accepted(settings, said):
    with pytest.raises(SettingError, match=said):
        check_metrics(settings)
