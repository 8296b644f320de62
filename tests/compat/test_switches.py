"""Settings that change requests and answers: raw input, CORS, the open inference protocol, service envelopes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from support.drop_in import DropIn, archive

ROWS = """
import json

def handle(data, context):
    if data is None:
        return None
    shown = [{key: [type(value).__name__, bytes(value).decode()] for key, value in row.items()} for row in data]
    return [json.dumps(row) for row in shown]
"""
ENVELOPED = """
class Handler:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        def shown(value):
            return value.decode() if isinstance(value, (bytes, bytearray)) else value
        rows = [row.get("data", row) if isinstance(row, dict) and "name" in row else row for row in data]
        rows = [{k: shown(v) for k, v in row.items()} if isinstance(row, dict) else shown(row) for row in rows]
        return [row if isinstance(row, list) else {"seen": row} for row in rows]
"""
JSON = {"Content-Type": "application/json"}
ORIGIN = {"Origin": "http://page.example"}
PREFLIGHT = {**ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-mine"}


@pytest.fixture(scope="module")
def server(start) -> DropIn:
    settings = {
        "decode_input_request": "false",
        "ts_open_inference_protocol": "true",
        "cors_allowed_origin": "*",
        "cors_allowed_methods": "GET, POST",
        "cors_allowed_headers": "x-mine",
    }
    live: DropIn = start(settings)
    archive(live.store, "rows", ROWS)
    for name in ("noop", "rows"):
        assert live.manage("POST", f"/models?url={name}.mar&initial_workers=1").status == 200, live.log.read_text()
    return live


@pytest.mark.parametrize(
    ("body", "kind"), [('{"a": 1}', "application/json"), ("text", "text/plain"), ("x", "image/png"), ("", "")]
)
def test_input_stays_raw_where_it_is_not_to_be_decoded(server: DropIn, body: str, kind: str) -> None:
    reply = server.ask("POST", "/predictions/rows", body, {"Content-Type": kind} if kind else {})
    assert reply.json() == {"body": ["bytearray", body]}


@pytest.mark.parametrize(
    ("method", "path", "api", "status"),
    [
        ("POST", "/predictions/noop", "inference", 200),
        ("POST", "/predictions/none", "inference", 404),
        ("GET", "/ping", "inference", 200),
        ("GET", "/nowhere", "inference", 404),
        ("GET", "/models", "management", 200),
        ("GET", "/metrics", "metrics", 200),
    ],
)
def test_every_answer_tells_browsers_who_may_read_it(
    server: DropIn, method: str, path: str, api: str, status: int
) -> None:
    reply = server.ask(method, path, b"x" if method == "POST" else None, ORIGIN, api)
    allowed = {name: value for name, value in reply.headers.items() if name.startswith("access-control-")}
    assert (reply.status, allowed) == (
        status,
        {
            "access-control-allow-origin": "*",
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": "x-mine",
        },
    )


def test_a_preflight_gets_what_any_options_request_gets(server: DropIn) -> None:
    reply = server.ask("OPTIONS", "/predictions/noop", None, PREFLIGHT)
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "*")
    assert reply.json()["openapi"] == "3.0.1"


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/v2", 200, {"name": "Torchserve", "version": "0.12.0", "extenstion": ["kserve", "kubeflow"]}),
        ("/v2/", 200, {"name": "Torchserve", "version": "0.12.0", "extenstion": ["kserve", "kubeflow"]}),
        ("/v2/health/live", 200, {"live": True}),
        ("/v2/health/ready", 200, {"ready": True}),
        ("/v2/models/noop/versions/1.11", 501, {"error": "Model versioning is not yet supported."}),
        ("/v2/models/noop/versions/1.11/ready", 501, {"error": "Model versioning is not yet supported."}),
    ],
)
def test_the_open_inference_protocol_is_answered(server: DropIn, path: str, status: int, body: dict[str, Any]) -> None:
    reply = server.ask("GET", path)
    assert (reply.status, reply.json()) == (status, body)


@pytest.mark.parametrize("path", ["/v2/models/noop", "/v2/models/noop/ready", "/v1/models/noop", "/v2/health"])
def test_routes_of_the_protocol_that_torchserve_lacks_are_not_found(server: DropIn, path: str) -> None:
    assert server.ask("GET", path).error()[:2] == (404, "ResourceNotFoundException")


def test_readiness_of_a_model_is_on_the_management_port(server: DropIn) -> None:
    assert server.manage("GET", "/v1/models/noop").json() == {"name": "noop", "ready": True}


B64 = base64.b64encode(b"hi").decode()
V1 = {"instances": [{"data": "a"}, {"data": "b"}]}
V2 = {"id": "7", "inputs": [{"name": "i", "shape": [2, 2], "datatype": "INT64", "data": [1, 2, 3, 4]}]}
V2_TEXT = {"inputs": [{"name": "t", "shape": [1], "datatype": "BYTES", "data": ["aGk="]}]}
INT64 = {"name": "i", "datatype": "INT64", "data": [1, 2, 3, 4], "shape": [4]}


@pytest.fixture(scope="module")
def enveloped(start) -> Any:
    servers: dict[str, DropIn] = {}

    def get(envelope: str) -> DropIn:
        if envelope not in servers:
            live = servers[envelope] = start({"service_envelope": envelope})
            archive(live.store, "seen", ENVELOPED)
            assert live.manage("POST", "/models?url=seen.mar&initial_workers=1").status == 200, live.log.read_text()
        return servers[envelope]

    return get


@pytest.mark.parametrize(
    ("envelope", "path", "body", "expected"),
    [
        ("json", "/predictions/seen", V1, {"predictions": [{"seen": {"data": "a"}}, {"seen": {"data": "b"}}]}),
        ("json", "/predictions/seen", {"instances": [{"b64": B64}]}, {"predictions": [{"seen": "hi"}]}),
        ("kserve", "/v1/models/seen:predict", V1, {"predictions": [{"seen": {"data": "a"}}, {"seen": {"data": "b"}}]}),
        ("kservev2", "/v2/models/seen/infer", V2, {"id": "7", "outputs": [INT64]}),
    ],
)
def test_an_envelope_is_opened_and_closed(
    enveloped: Any, envelope: str, path: str, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    reply = enveloped(envelope).ask("POST", path, json.dumps(body), JSON)
    if envelope == "kservev2":
        expected = {**expected, "model_name": "seen", "model_version": "1.0"}
    assert (reply.status, reply.json()) == (200, expected)


def test_an_answer_without_an_id_of_the_clients_has_the_requests(enveloped: Any) -> None:
    reply = enveloped("kservev2").ask("POST", "/v2/models/seen/infer", json.dumps({"inputs": V2["inputs"]}), JSON)
    assert reply.json()["id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize("envelope", ["json", "kserve", "kservev2"])
def test_what_an_envelope_cannot_read_is_told(enveloped: Any, differs: Callable[[str], None], envelope: str) -> None:
    differs("envelope-input")
    reply = enveloped(envelope).ask("POST", "/predictions/seen", b'{"other": 1}', JSON)
    assert reply.status == 400
    assert "must be a JSON object with a list" in reply.error()[2]
