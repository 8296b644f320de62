"""Where each value of a model's specification comes from: precedence, exceptions, and what wrong values do."""

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.archive.spec import OPTIONS, Sources, build_spec, read_config
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.errors import ArchiveError, InvalidInput

MANIFEST = {
    "runtime": "python",
    "model": {"modelName": "net", "modelVersion": "2.0", "handler": "net_handler.py:run", "configFile": "c.yaml"},
}
DEFAULTS = {"batch_size": 2, "workers": 0, "response_timeout": 60.0, "reject_invalid_json": True, "decode_input": True}


def build(
    config: dict[str, Any] | None = None,
    overrides: dict[str, Any] | None = None,
    settings: dict[str, dict[str, Any]] | None = None,
    defaults: dict[str, Any] | None = None,
    **changes: Any,
) -> ModelSpec:
    given = {
        "model_dir": Path("/models/net"),
        "url": "net.mar",
        "stem": "file",
        "overrides": overrides or {},
        "manifest": MANIFEST,
        "config": config or {},
        "config_name": "c.yaml",
        "defaults": DEFAULTS if defaults is None else defaults,
        "model_settings": settings or {},
        **changes,
    }
    return build_spec(Sources(**given))


def test_plain_archive() -> None:
    spec = build()
    assert spec.key == ModelKey("net", "2.0")
    assert (spec.handler, spec.model_dir, spec.url, spec.runtime) == (
        "net_handler:run",
        "/models/net",
        "net.mar",
        "python",
    )
    assert (spec.batch_size, spec.response_timeout, spec.min_workers) == (2, 60.0, 1)
    assert spec.manifest == MANIFEST
    assert spec.owned_dir
    assert {spec.provenance[name] for name in OPTIONS} == {"default"}
    assert spec.provenance["handler"] == "manifest"


def test_precedence_of_an_ordinary_field() -> None:
    layers: dict[str, Any] = {}
    expected = [(2, "default")]
    steps: list[tuple[str, Any, int, str]] = [
        ("settings", {"net": {"batch_size": 3}}, 3, "mlserve.toml [model.net]"),
        ("settings", {"net": {"batch_size": 3}, "net:2.0": {"batch_size": 4}}, 4, 'mlserve.toml [model."net:2.0"]'),
        ("config", {"batchSize": 5}, 5, "c.yaml"),
        ("overrides", {"batch_size": 6}, 6, "register"),
    ]
    for layer, value, number, source in steps:
        layers[layer] = value
        spec = build(**layers)
        assert (spec.batch_size, spec.provenance["batch_size"]) == (number, source)
        expected.append((number, source))
    assert len(set(expected)) == 5


def test_timeouts_of_the_archive_beat_the_call() -> None:
    spec = build({"responseTimeout": 30}, {"response_timeout": 99, "startup_timeout": 98})
    assert (spec.response_timeout, spec.provenance["response_timeout"]) == (30, "c.yaml")
    assert (spec.startup_timeout, spec.provenance["startup_timeout"]) == (98, "register")


def test_valid_worker_numbers_of_the_archive_beat_the_call() -> None:
    spec = build({"minWorkers": 2, "maxWorkers": 3}, {"min_workers": 5, "max_workers": 5})
    assert (spec.min_workers, spec.max_workers, spec.provenance["min_workers"]) == (2, 3, "c.yaml")


def test_contradicting_worker_numbers_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    spec = build({"minWorkers": 4, "maxWorkers": 2}, {"min_workers": 5, "max_workers": 6})
    assert (spec.min_workers, spec.max_workers) == (5, 6)
    assert "maxWorkers 2 is less than minWorkers 4" in caplog.text


def test_one_worker_number_is_enough() -> None:
    assert build({"minWorkers": 4}).max_workers == 4
    assert (build({"maxWorkers": 4}).min_workers, build({"maxWorkers": 4}).max_workers) == (1, 4)
    assert build({"maxWorkers": 0, "jobQueueSize": 0}).max_workers == 1


def test_workers_default_counts_as_a_default() -> None:
    spec = build(defaults={"workers": 3})
    assert (spec.min_workers, spec.max_workers, spec.provenance["min_workers"]) == (3, 3, "default")


def test_every_key_of_the_yaml_arrives() -> None:
    values: dict[str, Any] = {
        "batchSize": 8,
        "maxBatchDelay": 12.5,
        "batchPolicy": "window",
        "minWorkers": 2,
        "maxWorkers": 4,
        "jobQueueSize": 7,
        "responseTimeout": 1.5,
        "startupTimeout": 9,
        "maxRetryTimeoutInSec": 0,
        "retryOnWorkerDeath": 0,
        "isolateErrors": False,
        "deviceType": "gpu",
        "deviceIds": [2, 0],
        "threadsPerWorker": 3,
        "handlerThreads": 2,
    }
    spec = build(values)
    keys = {option.key: name for name, option in OPTIONS.items()}
    got = {key: getattr(spec, keys[key]) for key in values}
    assert got == {**values, "deviceIds": (2, 0)}
    assert {spec.provenance[keys[key]] for key in values} == {"c.yaml"}
    snake = {keys[key]: value for key, value in values.items()}
    assert {name: getattr(build(snake), name) for name in snake} == {**snake, "device_ids": (2, 0)}
    assert spec.config == values


WRONG: list[tuple[str, Any]] = [
    ("batchSize", 0),
    ("batchSize", "8"),
    ("batchSize", True),
    ("batchSize", 1.5),
    ("maxBatchDelay", -1),
    ("maxBatchDelay", float("nan")),
    ("maxBatchDelay", float("inf")),
    ("batchPolicy", "greedy"),
    ("minWorkers", 0),
    ("responseTimeout", 0),
    ("startupTimeout", None),
    ("deviceType", "tpu"),
    ("deviceIds", [0, -1]),
    ("deviceIds", ["0"]),
    ("deviceIds", 0),
    ("isolateErrors", "no"),
    ("threadsPerWorker", []),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_wrong_value_in_the_yaml_is_logged_and_left_out(caplog: pytest.LogCaptureFixture, key: str, value: Any) -> None:
    caplog.set_level(logging.WARNING)
    assert build({key: value}).provenance == build().provenance
    (message,) = caplog.messages
    assert "net: c.yaml" in message
    assert key in message


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"response_timeout": -1}, "response_timeout"),
        ({"runtime": "perl"}, "Invalid RuntimeType value: perl"),
        ({"runtime": "LSP"}, "LSP"),
        ({"model_name": "../x"}, "Model name"),
        ({"handler": "a/.."}, "Handler"),
    ],
)
def test_wrong_value_of_the_caller_is_refused(overrides: dict[str, Any], text: str) -> None:
    with pytest.raises(Exception, match=text) as error:
        build(overrides=overrides)
    assert getattr(error.value, "kind", "") == "invalid_input"


def test_startup_timeout_of_0_is_the_callers_to_give() -> None:
    assert build(overrides={"startup_timeout": 0}).startup_timeout == 0


def test_caller_names_model_handler_and_runtime() -> None:
    spec = build(overrides={"model_name": "other", "handler": "x.py", "runtime": "python3", "batch_size": None})
    assert (spec.key, spec.handler, spec.runtime) == (ModelKey("other", "2.0"), "x", "python3")
    assert spec.manifest["model"]["modelName"] == "net"
    assert spec.provenance["handler"] == spec.provenance["model_name"] == "register"


@pytest.mark.parametrize(("key", "near"), [("imputs", "inputs"), ("batchsize", "batch_size"), ("warm-up", "warmup")])
def test_a_misspelt_key_of_the_yaml_is_not_taken_in_silence(
    caplog: pytest.LogCaptureFixture, key: str, near: str
) -> None:
    build(config={key: 1, "mine": 2, "inputs": {}, "torch": {}})
    (message,) = caplog.messages
    assert f"nothing here reads {key}; did you mean {near}?" in message


def test_no_manifest_takes_defaults(tmp_path: Path) -> None:
    given: dict[str, Any] = {"manifest": None, "model_dir": tmp_path, "config": {}}
    spec = build(**given, default_handler="serve.py:go")
    assert (spec.key, spec.handler, spec.runtime) == (ModelKey("file", "1.0"), "serve:go", "python")
    (tmp_path / "only.py").write_text("")
    assert build(**given).handler == "only"
    (tmp_path / "second.py").write_text("")
    with pytest.raises(ArchiveError, match="names no handler"):
        build(**given)
    (tmp_path / "handler.py").write_text("")
    assert build(**given).handler == "handler"


def test_config_file_is_found_and_kept_inside(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("batchSize: 3")
    model = tmp_path / "model"
    model.mkdir()
    manifest = {"model": {"configFile": "../secret.yaml"}}
    with pytest.raises(ArchiveError, match="leaves the archive"):
        read_config(model, manifest)
    with pytest.raises(ArchiveError, match=r"Cannot read gone\.yaml"):
        read_config(model, {"model": {"configFile": "gone.yaml"}})
    assert read_config(model, None) == ({}, "")
    (model / "model-config.yaml").write_text("batchSize: 3")
    assert read_config(model, None) == ({"batchSize": 3}, "model-config.yaml")
    assert read_config(model, {"model": {}}) == ({}, "")
    (model / "model-config.yaml").write_bytes(b"# " + b"x" * (1 << 20))
    with pytest.raises(ArchiveError, match="larger"):
        read_config(model, None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(config=st.dictionaries(st.sampled_from([option.key for option in OPTIONS.values()] + list(OPTIONS)), VALUES))
def test_no_config_can_break_a_model(config: dict[str, Any]) -> None:
    spec = build(config)
    assert spec.batch_size >= 1
    assert 1 <= spec.min_workers <= spec.max_workers
    assert spec.response_timeout > 0
    assert all(isinstance(device, int) and device >= 0 for device in spec.device_ids)
    assert spec.python == ""


def test_unfit_name_is_an_invalid_input() -> None:
    with pytest.raises(InvalidInput):
        build(manifest=None, stem="_x", default_handler="h")


def test_devices_and_kinds_of_parallelism_are_read_in_any_case() -> None:
    spec = build({"deviceType": "GPU", "parallelType": "Tp", "torchrun": {"nproc-per-node": 4}})
    assert (spec.device_type, spec.parallel_type, spec.parallel_level) == ("gpu", "tp", 4)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"parallelLevel": 3}, "parallelLevel (or torchrun) without parallelType"),
        ({"torchrun": {"nproc-per-node": 2}}, "parallelLevel (or torchrun) without parallelType"),
        ({"parallelType": "tp"}, "parallelType without parallelLevel (or torchrun)"),
    ],
)
def test_half_of_a_parallel_pair_is_dropped_without_a_word(
    config: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    spec = build(config)
    assert (spec.parallel_type, spec.parallel_level) == ("", 0)
    assert spec.provenance["parallel_type"] == spec.provenance["parallel_level"] == "default"
    assert [record.message for record in caplog.records] == [f"net: c.yaml: {said}; ignored"]


def test_type_of_the_archive_and_level_of_the_settings_do_not_find_each_other(caplog: pytest.LogCaptureFixture) -> None:
    level = {"net": {"parallel_level": 2}}
    spec = build({"parallelType": "custom"}, settings=level)
    assert (spec.parallel_type, spec.parallel_level) == ("custom", 2)
    alone = build(settings=level)
    assert (alone.parallel_type, alone.parallel_level) == ("", 2), "GPUs of a worker, by the operator's choice"
    assert not caplog.records


def test_a_latency_target_that_the_policy_does_not_know_is_not_taken_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert build({"batchPolicy": "adaptive", "latencyTarget": 50}).latency_target_ms == 50
    assert not caplog.records
    build({"latencyTarget": 50})
    assert "latencyTarget counts with batchPolicy adaptive only" in caplog.text


@pytest.mark.parametrize("other", [{"asyncCommunication": True}, {"sequenceBatching": True}, {"preprocessThreads": 1}])
def test_threads_beside_another_way_to_have_several_batches_are_not_taken_in_silence(
    caplog: pytest.LogCaptureFixture, other: dict[str, Any]
) -> None:
    (key,) = other
    spec = build({"handlerThreads": 2, **other})
    assert spec.handler_threads == 1
    assert key in caplog.text
    with pytest.raises(InvalidInput, match=f"handlerThreads 2 cannot go with {key}"):
        build(other, {"handler_threads": 2})
