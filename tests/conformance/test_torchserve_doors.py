"""The inference API in TorchServe's style: the same bytes from the fast lane and from aiohttp, as a real 0.12 sends."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.raw import RawConnection, get, post
from support.server import LiveServer, Reply, running

HANDLERS = Path(__file__).parent / "handlers"
STYLE = {
    "SERVER_HTTP_STYLE": "torchserve",
    "SERVER_HANDLER_ERROR_STATUS": "503",
    "SERVER_ERROR_DETAIL": "none",
    "SERVER_ECHO_REQUEST_ID": "false",
    "SERVER_INFER_CONTENT_TYPE": "false",
    "SERVER_TYPED_FORM_FIELDS": "false",
    "SERVER_OPEN_INFERENCE": "true",
    "SERVER_MAX_REQUEST_SIZE": "100000",
}
OCTETS = "content-type: application/octet-stream"


@pytest.fixture(scope="module", params=["fast lane", "aiohttp"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    models = [f"{name}={HANDLERS / name}.py" for name in ("mirror", "outputs")]
    settings = {**STYLE, "SERVER_FAST_LANE": str(request.param == "fast lane").lower()}
    with running(tmp_path_factory.mktemp("doors"), *models, settings=settings) as live:
        yield live


def wire(port: int, request: bytes) -> bytes:
    """The bytes of one answer, with its id replaced by ``ID``."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(request)
        data = b""
        while not _is_whole(data):
            piece = sock.recv(65536)
            if not piece:
                break
            data += piece
    pattern = rb"x-request-id: [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\r\n"
    return re.sub(pattern, b"x-request-id: ID\r\n", data)


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?m)^content-length: (\d+)", head)
    if not end or length is None:
        return bool(end) and body.endswith(b"0\r\n\r\n")
    return len(body) >= int(length[1])


NO_CACHE = (
    "x-request-id: ID\r\nPragma: no-cache\r\nCache-Control: no-cache; no-store, must-revalidate, private\r\n"
    "Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)


def success(body: str, status: str = "200 ", more: str = "") -> str:
    length = len(body.encode())
    return f"HTTP/1.1 {status}\r\n{more}{NO_CACHE}content-length: {length}\r\nconnection: keep-alive\r\n\r\n{body}"


def failure(status: str, kind: str, message: str) -> str:
    body = json.dumps({"code": int(status[:3]), "type": kind, "message": message}, indent=2) + "\n"
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{NO_CACHE}content-length: {len(body)}\r\n"
        f"connection: close\r\n\r\n{body}"
    )


NO_ROUTE = failure(
    "404 Not Found",
    "ResourceNotFoundException",
    "Requested resource is not found, please refer to API document.",
)
WIRE = [
    (post("/predictions/outputs", b"str", OCTETS), success("héllo")),
    (post("/predictions/outputs/1.0", b"none", OCTETS), success("null")),
    (post("/predictions/outputs", b"header", OCTETS), success("ok", more="x-model: seven\r\n")),
    (
        post("/predictions/outputs", b"status", OCTETS),
        success("no more", "507 Out of patience").replace("keep-alive", "close"),
    ),
    (
        post("/predictions/outputs", b"raise", OCTETS),
        failure("503 Service Unavailable", "InternalServerException", "Prediction failed"),
    ),
    (
        post("/predictions/outputs", b"refuse", OCTETS),
        failure("418 Client Error (418)", "InternalServerException", "I am a teapot"),
    ),
    (
        post("/predictions/outputs", b"stream", OCTETS),
        f"HTTP/1.1 200 \r\nts_stream_next: true\r\n{NO_CACHE}transfer-encoding: chunked\r\n"
        "connection: keep-alive\r\n\r\n3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n",
    ),
    (post("/predictions/nope", b"x"), failure("404 Not Found", "ModelNotFoundException", "Model not found: nope")),
    (post("/predictions//1.0", b"x"), failure("404 Not Found", "ModelNotFoundException", "Model not found: ")),
    (
        post("/predictions/outputs/9", b"x"),
        failure("404 Not Found", "ModelVersionNotFoundException", "Model version: 9 does not exist for model: outputs"),
    ),
    (post("/predictions", b"x"), NO_ROUTE),
    (post("/nope", b"x"), NO_ROUTE),
    (
        get("/"),
        failure(
            "405 Method Not Allowed",
            "MethodNotAllowedException",
            "Requested method is not allowed, please refer to API document.",
        ),
    ),
    (
        get("/ping"),
        success('{\n  "status": "Healthy"\n}\n', "200 OK", "content-type: application/json\r\n"),
    ),
    (
        get("/v2"),
        success(
            '{\n  "name": "Torchserve",\n  "version": "0.12.0",\n'
            '  "extenstion": [\n    "kserve",\n    "kubeflow"\n  ]\n}\n',
            "200 OK",
            "content-type: application/json\r\n",
        ),
    ),
    (
        get("/v2/health/ready"),
        success('{\n  "ready": true\n}\n', "200 OK", "content-type: application/json\r\n"),
    ),
    (
        get("/v2/models/mirror/versions/1"),
        success(
            '{\n  "error": "Model versioning is not yet supported."\n}\n',
            "501 Not Implemented",
            "content-type: application/json\r\n",
        ).replace("keep-alive", "close"),
    ),
    (
        post("/invocations", b"x"),
        failure("400 Bad Request", "BadRequestException", "Parameter model_name is required."),
    ),
    (
        post("/predictions/mirror", b"z" * 100_001, OCTETS),
        "HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        b"POST /predictions/mirror HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 200000\r\n\r\n",
        "HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n",
    ),
]


@pytest.mark.parametrize(("request_bytes", "answer"), WIRE, ids=[each[0].split(b" HTTP")[0].decode() for each in WIRE])
def test_an_answer_is_torchserves_byte_for_byte(server: LiveServer, request_bytes: bytes, answer: str) -> None:
    assert wire(server.port(), request_bytes).decode() == answer


def test_broken_http_is_refused_in_torchserves_words(server: LiveServer) -> None:
    answer = wire(server.port(), b"garbage\r\n\r\n").decode().replace("HTTP/1.0", "HTTP/1.1")
    assert answer == failure("400 Bad Request", "BadRequestException", "Invalid HTTP message.")


def test_an_error_ends_its_connection_and_a_success_does_not(server: LiveServer) -> None:
    with RawConnection(server.port()) as client:
        for _ in range(2):
            client.send(post("/predictions/outputs", b"str", OCTETS))
            assert client.answer() is not None
        client.send(post("/predictions/nope", b"x"))
        assert client.answer() is not None
        assert client.rest() == b""


def seen(reply: Reply) -> Any:
    assert reply.status == 200, reply
    return reply.json()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_any_method_predicts(server: LiveServer, method: str) -> None:
    assert seen(server.request(method, "/predictions/mirror", b"x"))["row"]["body"]["value"] == "x"


@pytest.mark.parametrize(
    ("path", "explain", "url_path"),
    [
        ("/predictions/mirror/1.0/a//b%20c/?q=1", "False", "a//b c"),
        ("/explanations/mirror?q=1", "True", ""),
        ("/v1/models/mirror:predict?q=1", "False", None),
        ("/v1/models/mirror:explain", "True", None),
        ("/v2/models/mirror/infer", "False", None),
        ("/v2/models/mirror/explain", "True", None),
        ("/models/mirror/invoke", None, None),
        ("/mirror/predict", None, None),
        ("/mirror/1.0/predict", None, None),
        ("/invocations?model_name=mirror", None, None),
    ],
)
def test_each_route_predicts_and_shows_the_handler_torchserves_headers(
    server: LiveServer, path: str, explain: str | None, url_path: str | None
) -> None:
    reply = server.request("POST", path, b"x", {"x-request-id": "mine"})
    headers = seen(reply)["headers"]
    assert (headers.get("explain"), headers.get("url_path")) == (explain, url_path)
    assert headers["x-request-id"] == "mine"
    assert reply.headers["x-request-id"] == seen(reply)["request_id"] != "mine"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/invocations?model_name=mirror&a=1&a=2", ["model_name", "a", "body"]),
        ("/models/mirror/invoke?a=1&a=2", ["a", "body"]),
        ("/mirror/predict?a=1&a=2", ["a", "body"]),
        ("/predictions/mirror?a=1", ["body"]),
        ("/v2/models/mirror/infer?a=1", ["body"]),
    ],
)
def test_query_parameters_are_keys_of_the_row_where_torchserve_has_them(
    server: LiveServer, path: str, names: list[str]
) -> None:
    row = seen(server.request("POST", path, b"x"))["row"]
    assert list(row) == names
    assert "a" not in row or row["a"] == {"type": "bytearray", "value": "2", "length": 1}


def test_an_invocation_finds_its_model_in_a_form(server: LiveServer) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert list(seen(server.request("POST", "/invocations", b"model_name=mirror&z=1", form))["row"]) == [
        "model_name",
        "z",
    ]


def test_only_files_of_a_form_are_decoded(server: LiveServer) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n'
        b"Content-Type: application/json\r\n\r\n[1]\r\n"
        b'--x\r\nContent-Disposition: form-data; name="g"\r\nContent-Type: application/json\r\n\r\n[1]\r\n--x--\r\n'
    )
    row = seen(
        server.request("POST", "/predictions/mirror", body, {"content-type": "multipart/form-data; boundary=x"})
    )["row"]
    assert row["f"] == {"type": "list", "value": [1]}
    assert row["g"] == {"type": "bytearray", "value": "[1]", "length": 3}


@pytest.mark.parametrize("path", ["/predictions/mirror", "/explanations/mirror/1.0", "/mirror/predict"])
def test_options_describes_the_model(server: LiveServer, path: str) -> None:
    document = seen(server.request("OPTIONS", path))
    assert document["info"]["title"] == "RESTful API for: mirror"
    assert "/prediction/mirror" in document["paths"]
    assert server.request("OPTIONS", "/predictions/nope").status == 404


@pytest.mark.parametrize(
    ("method", "path"), [("OPTIONS", "/"), ("GET", "/api-description"), ("POST", "/api-description/")]
)
def test_the_api_describes_itself(server: LiveServer, method: str, path: str) -> None:
    document = seen(server.request(method, path))
    assert (document["openapi"], document["info"]["title"], document["info"]["version"]) == (
        "3.0.1",
        "TorchServe APIs",
        "0.12.0",
    )


def test_a_model_without_workers_is_told_so_in_torchserves_words(server: LiveServer) -> None:
    server.manage("PUT", "/models/outputs?min_worker=0&synchronous=true")
    try:
        reply = server.predict("outputs", b"str")
        assert (reply.status, reply.error()[1]) == (503, "ServiceUnavailableException")
        assert reply.error()[2].startswith('Model "outputs" has no worker to serve inference request. Please use scale')
        versioned = server.request("POST", "/predictions/outputs/1.0", b"str").error()[2]
        assert versioned.startswith('Model "outputs" Version 1.0" has no worker')
    finally:
        server.manage("PUT", "/models/outputs?min_worker=1&synchronous=true")
