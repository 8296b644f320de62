"""Paths of the inference API, as a real TorchServe 0.12 resolved them, and mlserve's own."""

from __future__ import annotations

import pytest

from mlserve.protocols.inference_routes import EXPLAIN_FALSE, InferenceRoute, find_route
from mlserve.rest.shared import api_of

PREDICTIONS = [
    ("/predictions/m", InferenceRoute("predict", "m", url_path="")),
    ("/predictions/m/", InferenceRoute("predict", "m", url_path="")),
    ("/predictions/m/1.0", InferenceRoute("predict", "m", "1.0", url_path="")),
    ("/predictions/m/1.0/a//b%20c/", InferenceRoute("predict", "m", "1.0", url_path="a//b c")),
    ("/explanations/m", InferenceRoute("predict", "m", explain=True, url_path="")),
    ("/predictions//1.0", InferenceRoute("predict", "", "1.0", url_path="")),
    ("/invocations", InferenceRoute("predict", query=True)),
    ("/invocations/", InferenceRoute("predict", query=True)),
    ("/models/m/invoke", InferenceRoute("predict", "m", query=True)),
    ("/m/predict", InferenceRoute("predict", "m", query=True)),
    ("/m/1.0/predict", InferenceRoute("predict", "m", "1.0", query=True)),
    ("/v1/models/m:predict", InferenceRoute("predict", "m", headers=EXPLAIN_FALSE)),
    ("/v1/models/m:explain", InferenceRoute("predict", "m", explain=True)),
    ("/v2/models/m/infer", InferenceRoute("predict", "m", headers=EXPLAIN_FALSE)),
    ("/v2/models/m/explain", InferenceRoute("predict", "m", explain=True)),
    ("/wfpredict/w", InferenceRoute("workflow", "w")),
    ("/", InferenceRoute("api")),
    ("/api-description/", InferenceRoute("api")),
    ("/ping", InferenceRoute("ping")),
    ("/ping/x", InferenceRoute("ping")),
    ("/health/live", InferenceRoute("live")),
    ("/health/ready", InferenceRoute("ready")),
    ("/models/m/ready", InferenceRoute("model_ready", "m")),
]


@pytest.mark.parametrize(("path", "route"), PREDICTIONS)
def test_each_path_leads_where_torchserves_does(path: str, route: InferenceRoute) -> None:
    assert find_route(path) == route


@pytest.mark.parametrize(
    "path",
    [
        "/predictions", "/predictions/", "/predictions//", "/nope", "/invocations/x", "/api-description/x", "/models",
        "/models/m", "/models/m/other", "/v1/models/m", "/v1/models/m:x", "/v2/models/m", "/v2/models/m/ready",
        "//", "/v2", "/v2/health/live", "/v2/models/m/versions/1", "/health", "/metrics", "/a/b/c/predict",
    ],
)  # fmt: skip
def test_other_paths_are_no_inference(path: str) -> None:
    assert find_route(path) is None


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("/v2", "v2_server"),
        ("/v2/", "v2_server"),
        ("/v2/health/live", "v2_live"),
        ("/v2/health/ready", "v2_ready"),
        ("/v2/models/m/versions/1", "v2_versions"),
        ("/v2/models/m/versions/1/infer", "v2_versions"),
        ("/v2/models/m/infer", "predict"),
    ],
)
def test_the_open_inference_protocol_adds_its_routes(path: str, action: str) -> None:
    route = find_route(path, open_inference=True)
    assert route is not None
    assert route.action == action


def test_the_open_inference_protocol_has_no_model_routes() -> None:
    assert [find_route(f"/v2/models/m{rest}", True) for rest in ("", "/ready", "/versions")] == [None] * 3


@pytest.mark.parametrize(
    ("target", "api"),
    [
        ("/predictions/m?a=1", "inference"),
        ("/ping", "inference"),
        ("/models/m/invoke", "inference"),
        ("/v1/models/m:predict", "inference"),
        ("/v1/models/m", "management"),
        ("/models", "management"),
        ("/models?url=x", "management"),
        ("/models/m", "management"),
        ("/models/m/1.0", "management"),
        ("/models/m/1.0/set-default", "management"),
        ("/token?type=inference", "management"),
        ("/workflows/w", "management"),
        ("/metrics?name[]=x", "metrics"),
        ("/metrics/x", "metrics"),
        ("/nope", "management"),
    ],
)
def test_on_one_address_each_api_keeps_its_paths(target: str, api: str) -> None:
    assert api_of(target, False) == api
