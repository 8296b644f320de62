"""Paths, parameters and results of the management API, without HTTP."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.core.model import ModelDescription, ModelKey, ModelSpec, SpareInfo, WorkerInfo
from mlserve.errors import InvalidInput, MethodNotAllowed, ModelNotFound, RouteNotFound, ServeError
from mlserve.protocols import describing
from mlserve.protocols import management as codec
from mlserve.protocols.errors import describe_error, json_body

ROUTES = [
    ("GET", "/models", "list", "", ""),
    ("GET", "/models//", "list", "", ""),
    ("HEAD", "/models", "list", "", ""),
    ("POST", "/models/", "register", "", ""),
    ("GET", "/models/m", "describe", "m", ""),
    ("GET", "/models/m/", "describe", "m", ""),
    ("GET", "/models/m/1.0", "describe", "m", "1.0"),
    ("GET", "/models/m/all", "describe", "m", "all"),
    ("GET", "/models/m/1.0/set-default", "describe", "m", "1.0"),
    ("GET", "/models/a%2Fb/1%200", "describe", "a/b", "1 0"),
    ("PUT", "/models/m", "scale", "m", ""),
    ("PUT", "/models/m/1.0", "scale", "m", "1.0"),
    ("PUT", "/models/m/1.0/set-default", "set_default", "m", "1.0"),
    ("DELETE", "/models/m/1.0", "unregister", "m", "1.0"),
    ("OPTIONS", "/models/m", "model_api", "m", ""),
    ("OPTIONS", "/", "api", "", ""),
    ("OPTIONS", "*", "api", "", ""),
    ("GET", "/api-description", "api", "", ""),
    ("POST", "/api-description/", "api", "", ""),
    ("GET", "/v1/models/m", "readiness", "m", ""),
    ("GET", "/v1/models/m:predict", "readiness", "m", ""),
    ("OPTIONS", "/models/m/1.0", "model_api", "m", "1.0"),
]


@pytest.mark.parametrize(("method", "path", "action", "name", "version"), ROUTES)
def test_path_leads_elsewhere(method: str, path: str, action: str, name: str, version: str) -> None:
    assert codec.route(method, path) == codec.Route(action, name, version)


@pytest.mark.parametrize("path", ["/x", "/models//m", "//models", "/v1/models", "/v1/models/m/x", "/v1/m", "/ping"])
def test_unknown_path_is_taken(path: str) -> None:
    with pytest.raises(RouteNotFound):
        codec.route("GET", path)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/models", ("GET", "POST")),
        ("POST", "/models/m", ("GET", "PUT", "DELETE", "OPTIONS")),
        ("FOO", "/v1/models/m", ("GET",)),
        ("GET", "/", ("OPTIONS",)),
    ],
)
def test_wrong_method_is_taken(method: str, path: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        codec.route(method, path)
    assert caught.value.allowed == allowed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4", 4), ("+4", 4), (4, 4), (4.0, 4), ("4.0", None), ("four", None), ("", None), (True, None), ([4], None)],
)
def test_number_is_read_differently(text: Any, expected: int | None) -> None:
    overrides = codec.parse_register({"url": "a.mar", "batch_size": text}).overrides
    assert overrides.get("batch_size") == expected


@pytest.mark.parametrize(
    ("text", "workers"), [("3", 3), ("-1", 0), ("x", None), ("99999999999", None), ("2147483648", None)]
)
def test_initial_workers_are_read_differently(text: str, workers: int | None) -> None:
    assert codec.parse_register({"url": "a.mar", "initial_workers": text}).initial_workers == workers


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("TRUE", True), ("yes", False), ("", False), (False, False), (True, True)]
)
def test_synchronous_is_read_differently(value: Any, expected: bool) -> None:
    assert codec.parse_register({"url": "a.mar", "synchronous": value}).synchronous is expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"batch_size": "0"},
        {"batch_size": -3},
        {"max_batch_delay": "-1"},
        {"response_timeout": "0"},
        {"startup_timeout": -1},
        {"initial_workers": "100000"},
        {"handler": 7},
        {"model_name": "a\x00b"},
        {"model_name": ["m"]},
    ],
)
def test_senseless_value_is_taken_or_blamed_on_nothing(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.parse_register({"url": "a.mar", **parameters})
    assert next(iter(parameters)) in caught.value.message


@pytest.mark.parametrize("parameters", [{"min_worker": "-1"}, {"min_worker": "5000"}, {"max_worker": "0"}])
def test_senseless_scale_is_taken(parameters: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.parse_scale(parameters)
    assert next(iter(parameters)) in caught.value.message


def test_scale_has_other_defaults() -> None:
    assert codec.parse_scale({}) == codec.ScaleCall("", 1, 1, False)
    assert codec.parse_scale({"min_worker": "3"}).max_workers == 3
    assert codec.parse_scale({"min_worker": "0"}) == codec.ScaleCall("", 0, 0, False)
    assert codec.parse_scale({"min_worker": "x", "max_worker": "y"}) == codec.ScaleCall("", 1, 1, False)


@pytest.mark.parametrize(
    ("limit", "expected"), [("1", 1), ("100", 100), ("101", 100), ("-1", 100), ("x", 100), ("0", 0), (None, 100)]
)
def test_limit_is_read_differently(limit: str | None, expected: int) -> None:
    parameters = {} if limit is None else {"limit": limit}
    assert codec.parse_list(parameters) == codec.ListCall(expected, 0)


@given(st.integers(1, 100), st.integers(0, 250))
def test_paging_loses_or_repeats_a_model(limit: int, count: int) -> None:
    models = [(f"m{number:03}", f"{number}.mar") for number in range(count)]
    seen: list[str] = []
    token = "0"
    for _ in range(count // limit + 2):
        page = describing.list_json(models, codec.parse_list({"limit": str(limit), "next_page_token": token}))
        assert len(page["models"]) <= limit
        seen += [item["modelName"] for item in page["models"]]
        if "nextPageToken" not in page:
            break
        token = page["nextPageToken"]
    assert seen == [name for name, _ in models]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*codec.REGISTER_PARAMETERS, *codec.SCALE_PARAMETERS, *codec.LIST_PARAMETERS]) | st.text()
PARAMETERS = st.dictionaries(NAMES, JSON, max_size=8)


@given(PARAMETERS)
def test_strange_parameters_end_in_a_server_error(parameters: dict[str, Any]) -> None:
    for parse in (codec.parse_register, codec.parse_scale, codec.parse_list):
        try:
            call = parse(parameters)
        except ServeError as error:
            status, _, message = describe_error(error)
            assert 400 <= status < 500
            json_body({"message": message})
        else:
            if isinstance(call, codec.RegisterCall):
                assert call.url
                assert call.overrides.get("batch_size", 1) >= 1
                assert 0 <= (call.initial_workers or 0) <= codec.MAX_WORKERS
            if isinstance(call, codec.ScaleCall):
                assert 0 <= call.min_workers <= call.max_workers <= codec.MAX_WORKERS
            if isinstance(call, codec.ListCall):
                assert 0 <= call.limit <= 100
                assert call.offset >= 0


@given(st.binary(max_size=60), st.sampled_from(["application/json", "APPLICATION/JSON; charset=x", "text/plain", ""]))
def test_strange_body_ends_in_a_server_error(body: bytes, content_type: str) -> None:
    try:
        parameters = codec.read_parameters({"url": "q"}, content_type, body)
    except InvalidInput:
        assert content_type.lower().startswith("application/json")
    else:
        assert parameters.get("url") is not None


@given(st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "X"]), st.text(max_size=40))
def test_strange_path_ends_in_a_server_error(method: str, path: str) -> None:
    with contextlib.suppress(RouteNotFound, MethodNotAllowed):
        assert codec.route(method, path).action


def test_url_that_leaves_the_store_is_taken() -> None:
    for url in ("../a.mar", "a/../../b.mar", ".."):
        with pytest.raises(ModelNotFound, match="Relative path is not allowed"):
            codec.parse_register({"url": url})


def test_describe_hides_a_value_whose_source_it_tells() -> None:
    given = {"threads_per_worker": 1, "preprocess_threads": 0, "handler_threads": 2, "job_queue_size": 7}
    spec = ModelSpec(ModelKey("m", "1"), "/m", "h", **given, provenance=dict.fromkeys(given, "model-config.yaml"))
    shown = describing.describe_json(ModelDescription(spec, "READY", True, [], 0, 0))
    assert {key: shown[key] for key in ("threadsPerWorker", "preprocessThreads", "handlerThreads")} == {
        "threadsPerWorker": 1,
        "preprocessThreads": 0,
        "handlerThreads": 2,
    }
    assert shown["jobQueueSize"] == 7
    assert "isolateErrors" not in shown


def test_describe_of_a_gpu_model_hides_the_gpu() -> None:
    spec = ModelSpec(ModelKey("m", "2"), "/d", "h", device_ids=(3,), max_batch_delay_ms=2.5, python="/venv/bin/python")
    worker = WorkerInfo(9001, "LOADING", device="cuda:3", gpu_id=3, log_tail=tuple(str(line) for line in range(60)))
    shown = describing.describe_json(ModelDescription(spec, "LOADING", True, [worker], 200, 0), {3: "gpuId::3"})
    assert (shown["deviceType"], shown["deviceIds"], shown["useVenv"]) == ("gpu", [3], True)
    assert list(shown)[14:17] == ["deviceType", "deviceIds", "continuousBatching"]
    assert shown["maxBatchDelay"] == 2.5
    assert shown["jobQueueStatus"] == {"remainingCapacity": 0, "pendingRequests": 200}
    row = shown["workers"][0]
    assert (row["status"], row["gpu"], row["gpuUsage"], row["pid"]) == ("UNLOADING", True, "gpuId::3", -1)
    assert row["logTail"] == [str(line) for line in range(10, 60)]
    assert "spareWorkers" not in shown


def test_cost_of_a_spare_worker_is_hidden() -> None:
    model = ModelDescription(ModelSpec(ModelKey("m", "2"), "/d", "h"), "READY", True, [], 0, 0)
    shown = describing.describe_json(model, spares=[SpareInfo(4712, "warm", ("numpy", "torch"), 200, 180)])
    expected = {"pid": 4712, "state": "warm", "packages": ["numpy", "torch"], "memoryUsage": 200, "memoryShare": 180}
    assert shown["spareWorkers"] == [expected]


def test_undecodable_text_cannot_be_printed() -> None:
    assert json_body({"a": "\udcff"}) == b'{\n  "a": "\\udcff"\n}\n'
