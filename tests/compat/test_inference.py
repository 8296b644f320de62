"""Predictions over every route, body and kind of answer, byte for byte as TorchServe's clients know them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from support.drop_in import DropIn, archive

ROWS = """
import json

def handle(data, context):
    if data is None:
        return None
    def shown(value):
        return [type(value).__name__, value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else value]
    return [json.dumps({key: shown(value) for key, value in row.items()}) for row in data]
"""
HEADERS = """
import json

def handle(data, context):
    return None if data is None else [json.dumps(context.get_all_request_header(i)) for i in range(len(data))]
"""
KINDS = """
from ts.utils.util import PredictionException

class Other:
    pass

def handle(data, context):
    if data is None:
        return None
    kind = bytes(data[0]["body"]).decode()
    if kind == "raise":
        raise ValueError("secret")
    if kind == "memory":
        raise MemoryError("no")
    if kind == "cuda":
        raise RuntimeError("CUDA out of memory")
    if kind == "teapot":
        raise PredictionException("no coffee", 418)
    if kind == "odd":
        raise PredictionException("odd", 599)
    if kind == "status":
        context.set_response_status(507, "full", 0)
        return ["body of 507"]
    if kind == "headers":
        context.set_response_content_type(0, "text/plain")
        context.set_response_header(0, "dummy", "1")
        return ["x"]
    return {
        "str": ["é"], "bytes": [b"\\x00\\xff"], "dict": [{"a": [1, 2.5, None, True]}], "list": [[1, "é"]],
        "int": [7], "float": [float("nan")], "none": [None], "tuple": ("x",), "short": [], "long": ["a", "b"],
        "other": [Other()], "alone": "x",
    }[kind]
"""
NO_WORKER = (
    'Model "{}" has no worker to serve inference request. Please use scale workers API to add workers. '
    "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)


@pytest.fixture(scope="module")
def server(start) -> DropIn:
    live = start({"max_request_size": 100_000})
    store: Path = live.store
    for name, source in (("rows", ROWS), ("headers", HEADERS), ("kinds", KINDS)):
        archive(store, name, source)
    for url in ("noop", "noopv2", "klass", "entry", "bare", "rows", "headers", "kinds"):
        assert live.manage("POST", f"/models?url={url}.mar&initial_workers=1").status == 200, live.log.read_text()
    assert live.manage("POST", "/models?url=noop.mar&model_name=idle&initial_workers=0").status == 200
    return live


ROUTES = [
    ("POST", "/predictions/noop"),
    ("GET", "/predictions/noop"),
    ("PUT", "/predictions/noop"),
    ("POST", "/predictions/noop/1.11"),
    ("POST", "/predictions/noop/1.2.1"),
    ("POST", "/predictions/noop/1.11/and/more"),
    ("POST", "/predictions/noop?a=b"),
    ("POST", "/explanations/noop"),
    ("POST", "/explanations/noop/1.2.1"),
    ("POST", "/invocations?model_name=noop"),
    ("POST", "/models/noop/invoke"),
    ("POST", "/noop/predict"),
    ("GET", "/noop/predict?data=test"),
    ("POST", "/noop/1.2.1/predict"),
    ("POST", "/v1/models/noop:predict"),
    ("POST", "/v1/models/noop:explain"),
    ("POST", "/v2/models/noop/infer"),
    ("POST", "/v2/models/noop/explain"),
    ("POST", "/predictions/klass"),
    ("POST", "/predictions/entry"),
    ("POST", "/predictions/bare"),
    *(
        ("POST", path.format(model))
        for model in ("entry", "bare")
        for path in (
            "/explanations/{}/1.0",
            "/v1/models/{}:predict",
            "/v1/models/{}:explain",
            "/v2/models/{}/infer",
            "/v2/models/{}/explain",
        )
    ),
]
BODIES = [
    (b"", ""),
    (b"test", "text/plain"),
    (b'{"data": "test"}', "application/json"),
    (b"data=t", "application/x-www-form-urlencoded"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(("body", "kind"), BODIES)
def test_every_inference_route_answers_every_body(
    server: DropIn, method: str, path: str, body: bytes, kind: str
) -> None:
    reply = server.ask(method, path, body, {"Content-Type": kind} if kind else {})
    assert (reply.status, reply.body) == (200, b"OK")


def test_a_success_has_torchserves_headers_and_no_content_type(server: DropIn) -> None:
    headers = server.ask("POST", "/predictions/noop", b"x", {"x-request-id": "mine"}).headers
    assert uuid.UUID(headers.pop("x-request-id"))
    assert headers == {
        "pragma": "no-cache",
        "cache-control": "no-cache; no-store, must-revalidate, private",
        "expires": "Thu, 01 Jan 1970 00:00:00 UTC",
        "content-length": "2",
        "connection": "keep-alive",
    }


@pytest.mark.parametrize(
    ("body", "kind", "row"),
    [
        (b'{"a": 1}', "application/json", {"body": ["dict", {"a": 1}]}),
        (b'{"a": 1}', "application/json; charset=utf-8", {"body": ["dict", {"a": 1}]}),
        (b"{broken", "application/json", {"body": ["bytearray", "{broken"]}),
        ("é".encode(), "text/plain", {"body": ["str", "é"]}),
        (b"\x00\xff", "image/jpeg", {"body": ["bytearray", "\x00\xff"]}),
        (b"x", "", {"body": ["bytearray", "x"]}),
        (b"", "", {"body": ["bytearray", ""]}),
        (b"a=1&b=%20x", "application/x-www-form-urlencoded", {"a": ["bytearray", "1"], "b": ["bytearray", " x"]}),
        (b"a=1", "APPLICATION/x-www-form-urlencoded; x=y", {"a": ["bytearray", "1"]}),
        (b'{"a": 1}', "application/json ", {"body": ["dict", {"a": 1}]}),
    ],
)
def test_a_handler_gets_the_row_that_it_was_written_for(server: DropIn, body: bytes, kind: str, row: dict) -> None:
    reply = server.ask("POST", "/predictions/rows", body, {"Content-Type": kind} if kind else {})
    assert json.loads(reply.body) == row


def test_the_parts_of_a_form_are_decoded_each_by_its_own_type(server: DropIn) -> None:
    parts = [
        ('name="plain"', "", "1"),
        ('name="data"; filename="x.json"', "application/json", '{"a": 1}'),
        ('name="note"; filename="n.txt"', "text/plain", "hi"),
        ('name="raw"; filename="r"', "application/octet-stream", "\x01"),
    ]
    text = "".join(
        f"--cut\r\nContent-Disposition: form-data; {name}\r\n"
        + (f"Content-Type: {kind}\r\n" if kind else "")
        + f"\r\n{value}\r\n"
        for name, kind, value in parts
    )
    body = f"{text}--cut--\r\n"
    reply = server.ask("POST", "/predictions/rows", body, {"Content-Type": "multipart/form-data; boundary=cut"})
    assert json.loads(reply.body) == {
        "plain": ["bytearray", "1"],
        "data": ["dict", {"a": 1}],
        "note": ["str", "hi"],
        "raw": ["bytearray", "\x01"],
    }


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=cut", "multipart/form-data"])
def test_half_a_form_is_refused(server: DropIn, differs: Callable[[str], None], kind: str) -> None:
    differs("broken-form")
    body = '--cut\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
    reply = server.ask("POST", "/predictions/rows", body, {"Content-Type": kind})
    assert reply.error()[:2] == (400, "BadRequestException")


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("/predictions/rows?q=1", {"body": ["bytearray", "x"]}),
        ("/models/rows/invoke?q=1", {"q": ["bytearray", "1"], "body": ["bytearray", "x"]}),
        ("/rows/predict?q=1&r=2", {"q": ["bytearray", "1"], "r": ["bytearray", "2"], "body": ["bytearray", "x"]}),
        ("/v1/models/rows:predict?q=1", {"body": ["bytearray", "x"]}),
    ],
)
def test_query_parameters_reach_the_handler_on_sagemakers_and_the_old_routes_only(
    server: DropIn, path: str, row: dict
) -> None:
    assert json.loads(server.ask("POST", path, b"x").body) == row


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/predictions/headers", {"url_path": "", "explain": "False"}),
        ("/predictions/headers/1.0/a/b", {"url_path": "a/b", "explain": "False"}),
        ("/explanations/headers", {"url_path": "", "explain": "True"}),
        ("/v1/models/headers:predict", {"url_path": None, "explain": "False"}),
        ("/v2/models/headers/explain", {"url_path": None, "explain": "True"}),
        ("/headers/predict", {"url_path": None, "explain": None}),
    ],
)
def test_a_handler_sees_the_clients_headers_and_what_the_route_says(
    server: DropIn, path: str, expected: dict[str, str | None]
) -> None:
    seen = json.loads(server.ask("POST", path, b"x", {"X-MiXed": "kept", "Content-Type": "a/b"}).body)
    assert seen["X-MiXed"] == "kept"
    assert seen["body"] == {"content-type": "a/b"}
    assert {key: seen.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("str", "é".encode()),
        ("bytes", b"\x00\xff"),
        ("dict", b'{\n  "a": [\n    1,\n    2.5,\n    null,\n    true\n  ]\n}'),
        ("list", b'[\n  1,\n  "\\u00e9"\n]'),
        ("int", b"7"),
        ("float", b"NaN"),
        ("none", b"null"),
    ],
)
def test_an_output_has_torchserves_bytes(server: DropIn, kind: str, body: bytes) -> None:
    reply = server.ask("POST", "/predictions/kinds", kind)
    assert (reply.status, reply.body, reply.headers.get("content-type")) == (200, body, None)


@pytest.mark.parametrize(
    ("kind", "status", "name", "message"),
    [
        ("raise", 503, "InternalServerException", "Prediction failed"),
        ("memory", 507, "OutOfMemoryException", "Out of resources"),
        ("cuda", 507, "OutOfMemoryException", "Out of resources"),
        ("teapot", 418, "InternalServerException", "no coffee"),
        ("odd", 599, "InternalServerException", "odd"),
        ("tuple", 503, "InternalServerException", "Invalid model predict output"),
        ("alone", 503, "InternalServerException", "Invalid model predict output"),
        ("short", 503, "InternalServerException", "number of batch response mismatched"),
        ("long", 503, "InternalServerException", "number of batch response mismatched"),
        ("other", 503, "InternalServerException", "Unsupported model output data type."),
    ],
)
def test_a_failure_has_torchserves_status_type_and_text(
    server: DropIn, kind: str, status: int, name: str, message: str
) -> None:
    reply = server.ask("POST", "/predictions/kinds", kind)
    code, _, text = reply.error()
    assert (reply.status, code, text) == (status, status, message)
    assert reply.headers["connection"] == "close"
    assert re.fullmatch(r"[A-Z][A-Za-z]+Exception", reply.error()[1])


def test_a_status_of_the_handlers_own_carries_its_body(server: DropIn) -> None:
    reply = server.ask("POST", "/predictions/kinds", "status")
    assert (reply.status, reply.body, reply.headers["connection"]) == (507, b"body of 507", "close")
    reply = server.ask("POST", "/predictions/kinds", "headers")
    assert (reply.headers["content-type"], reply.headers["dummy"]) == ("text/plain", "1")


NO_VERSION = "Model version: 9 does not exist for model: noop"
NOT_FOUND = "Requested resource is not found, please refer to API document."
NOT_ALLOWED = "Requested method is not allowed, please refer to API document."


@pytest.mark.parametrize(
    ("method", "path", "status", "name", "message"),
    [
        ("POST", "/predictions/none", 404, "ModelNotFoundException", "Model not found: none"),
        ("POST", "/predictions/noop/9", 404, "ModelVersionNotFoundException", NO_VERSION),
        ("POST", "/predictions", 404, "ResourceNotFoundException", NOT_FOUND),
        ("POST", "/predictions/", 404, "ResourceNotFoundException", NOT_FOUND),
        ("POST", "/nowhere", 404, "ResourceNotFoundException", NOT_FOUND),
        ("POST", "/", 405, "MethodNotAllowedException", NOT_ALLOWED),
        ("OPTIONS", "/predictions/none", 404, "ModelNotFoundException", "Model not found: none"),
        ("POST", "/invocations", 400, "BadRequestException", "Parameter model_name is required."),
        ("POST", "/models/none/invoke", 404, "ModelNotFoundException", "Model not found: none"),
        ("POST", "/v1/models/none:predict", 404, "ModelNotFoundException", "Model not found: none"),
        ("POST", "/v2/models/none/infer", 404, "ModelNotFoundException", "Model not found: none"),
        ("POST", "/predictions/idle", 503, "ServiceUnavailableException", NO_WORKER.format("idle")),
        ("POST", "/wfpredict/none", 404, "WorkflowNotFoundException", "Workflow not found: none"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_in_torchserves_words(
    server: DropIn, method: str, path: str, status: int, name: str, message: str
) -> None:
    reply = server.ask(method, path, b"x")
    assert (reply.status, reply.error()) == (status, (status, name, message))


def test_a_body_over_the_limit_is_refused_without_a_word(server: DropIn) -> None:
    reply = server.ask("POST", "/predictions/noop", b"x" * 100_001)
    assert (reply.status, reply.body, reply.headers["content-length"]) == (413, b"", "0")
    assert server.ask("POST", "/predictions/noop", b"x" * 99_999).status == 200


def test_health_and_descriptions_are_served(server: DropIn) -> None:
    reply = server.ask("GET", "/ping")
    assert (reply.status, reply.body) == (200, b'{\n  "status": "Healthy"\n}\n')
    for method, path in (("OPTIONS", "/"), ("GET", "/api-description")):
        document = server.ask(method, path).json()
        assert (document["openapi"], document["info"]["title"]) == ("3.0.1", "TorchServe APIs")
        assert document["info"]["version"] == "0.12.0"
    described = server.ask("OPTIONS", "/predictions/noop").json()
    assert described["info"]["title"] == "RESTful API for: noop"
