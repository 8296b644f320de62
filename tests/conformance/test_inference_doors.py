"""The inference API over both doors: what a handler receives, what a client gets, and that the doors agree."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.server import LiveServer, Reply, running

HANDLERS = Path(__file__).parent / "handlers"
VOLATILE = {"date", "server", "x-request-id", "cache-control", "connection"}


@pytest.fixture(scope="module", params=["fast lane", "aiohttp"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    models = [f"{name}={HANDLERS / name}.py" for name in ("mirror", "outputs")]
    fast = {"SERVER_FAST_LANE": str(request.param == "fast lane").lower(), "SERVER_MAX_REQUEST_SIZE": "100000"}
    with running(tmp_path_factory.mktemp("doors"), *models, settings=fast) as live:
        yield live


def seen(reply: Reply) -> Any:
    assert reply.status == 200, reply
    return reply.json()


MULTIPART = (
    b'--xx\r\nContent-Disposition: form-data; name="data"; filename="a.bin"\r\n\r\n\x00\xff\r\n'
    b'--xx\r\nContent-Disposition: form-data; name="meta"\r\nContent-Type: application/json\r\n\r\n{"k": 1}\r\n'
    b'--xx\r\nContent-Disposition: form-data; name="note"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--xx--\r\n'
)

ROWS = [
    pytest.param(b"raw", {}, {"body": {"type": "bytearray", "value": "raw", "length": 3}}, id="no content type"),
    pytest.param(b"", {}, {"body": {"type": "bytearray", "value": "", "length": 0}}, id="no body"),
    pytest.param(
        b'{"a": [1]}',
        {"Content-Type": "application/json; charset=utf-8"},
        {"body": {"type": "dict", "value": {"a": [1]}}},
        id="json",
    ),
    pytest.param("é".encode(), {"Content-Type": "text/plain"}, {"body": {"type": "str", "value": "é"}}, id="text"),
    pytest.param(
        b"\xff\xd8",
        {"Content-Type": "image/jpeg"},
        {"body": {"type": "bytearray", "value": "\xff\xd8", "length": 2}},
        id="image",
    ),
    pytest.param(
        b"a=1&b=x+y&a=2",
        {"Content-Type": "application/x-www-form-urlencoded"},
        {
            "a": {"type": "bytearray", "value": "2", "length": 1},
            "b": {"type": "bytearray", "value": "x y", "length": 3},
        },
        id="form",
    ),
    pytest.param(
        MULTIPART,
        {"Content-Type": "multipart/form-data; boundary=xx"},
        {
            "data": {"type": "bytearray", "value": "\x00\xff", "length": 2},
            "meta": {"type": "dict", "value": {"k": 1}},
            "note": {"type": "str", "value": "hello"},
        },
        id="multipart",
    ),
]


@pytest.mark.parametrize(("body", "headers", "row"), ROWS)
def test_a_handler_receives_the_row_that_torchserve_would_give(
    server: LiveServer, body: bytes, headers: dict[str, str], row: Any
) -> None:
    assert seen(server.request("POST", "/predictions/mirror", body, headers))["row"] == row


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_each_method_predicts(server: LiveServer, method: str) -> None:
    assert seen(server.request(method, "/predictions/mirror", b"x"))["row"]["body"]["value"] == "x"


def test_query_parameters_of_predictions_do_not_reach_the_handler(server: LiveServer) -> None:
    assert list(seen(server.request("POST", "/predictions/mirror?a=1", b"x"))["row"]) == ["body"]


def test_headers_reach_the_handler_with_the_clients_spelling(server: LiveServer) -> None:
    headers = seen(server.request("POST", "/predictions/mirror", b"x", {"X-MiXed": "Yes"}))["headers"]
    assert headers["X-MiXed"] == "Yes"
    assert headers["explain"] == "False"
    assert headers["url_path"] == ""


def test_explanations_are_marked(server: LiveServer) -> None:
    assert seen(server.request("POST", "/explanations/mirror", b"x"))["headers"]["explain"] == "True"


def test_the_rest_of_the_path_reaches_the_handler(server: LiveServer) -> None:
    assert seen(server.request("POST", "/predictions/mirror/1.0/a/b%20c", b"x"))["headers"]["url_path"] == "a/b c"


def test_the_clients_request_id_is_echoed_and_seen_by_the_handler(server: LiveServer) -> None:
    reply = server.request("POST", "/predictions/mirror", b"x", {"X-Request-Id": "order-7"})
    assert reply.headers["x-request-id"] == "order-7"
    assert seen(reply)["request_id"] == "order-7"


@pytest.mark.parametrize("bad", ["a b", "x" * 129, 'quo"te'])
def test_a_request_id_that_could_harm_a_log_is_replaced(server: LiveServer, bad: str) -> None:
    reply = server.request("POST", "/predictions/mirror", b"x", {"X-Request-Id": bad})
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", reply.headers["x-request-id"])
    assert seen(reply)["request_id"] == reply.headers["x-request-id"]


def test_the_server_timing_header_comes_when_it_is_asked_for(server: LiveServer) -> None:
    assert "server-timing" not in server.predict("mirror").headers
    timing = server.request("POST", "/predictions/mirror", b"x", {"X-Mlserve-Timing": "1"}).headers["server-timing"]
    phases = re.findall(r"(\w+);dur=([\d.]+)", timing)
    assert [phase for phase, _ in phases] == ["queue", "transfer", "preprocess", "inference", "postprocess"]


@pytest.mark.parametrize(
    ("kind", "status", "content_type", "body"),
    [
        ("dict", 200, "application/json", b'{\n  "cat": 0.5,\n  "dog": [\n    1,\n    null,\n    true\n  ]\n}'),
        ("str", 200, "text/plain; charset=utf-8", "héllo".encode()),
        ("bytes", 200, "application/octet-stream", b"\x00\x01"),
        ("number", 200, "application/json", b"1.5"),
        ("none", 200, "application/json", b"null"),
        ("status", 507, "text/plain; charset=utf-8", b"no more"),
        ("response", 201, "application/json", b'{\n  "a": 1\n}'),
    ],
)
def test_outputs_are_encoded_as_torchserve_does(
    server: LiveServer, kind: str, status: int, content_type: str, body: bytes
) -> None:
    reply = server.predict("outputs", kind.encode())
    assert (reply.status, reply.headers["content-type"], reply.body) == (status, content_type, body)


def test_a_handlers_headers_are_sent_and_cannot_split_the_answer(server: LiveServer) -> None:
    assert server.predict("outputs", b"header").headers["x-model"] == "seven"
    assert server.predict("outputs", b"response").headers["x-made"] == "yes"
    split = server.predict("outputs", b"split")
    assert "set-cookie" not in split.headers
    assert "x-injected" not in split.headers


def test_a_stream_that_breaks_at_once_sends_its_beginning(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port()), timeout=60) as client:
        client.sendall(b"POST /predictions/outputs HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nbreaks")
        time.sleep(0.1)
        server.signal(signal.SIGSTOP)
        time.sleep(0.5)
        server.signal(signal.SIGCONT)  # it finds the first piece and the failure together
        received = b"".join(iter(lambda: client.recv(4096), b""))
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n3\r\none\r\n")  # without the chunk that would end the body


def test_a_stream_arrives_in_pieces(server: LiveServer) -> None:
    reply = server.predict("outputs", b"stream")
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.headers["ts_stream_next"] == "true"
    assert reply.body == b"onetwothree"


ERRORS = [
    ("POST", "/predictions/nobody", b"x", {}, 404, "ModelNotFoundException", "Model not found: nobody"),
    (
        "POST",
        "/predictions/mirror/9",
        b"x",
        {},
        404,
        "ModelVersionNotFoundException",
        "Model version: 9 does not exist",
    ),
    ("POST", "/predictions", b"x", {}, 404, "ResourceNotFoundException", "Requested resource is not found"),
    ("POST", "/predictions/", b"x", {}, 404, "ResourceNotFoundException", "Requested resource is not found"),
    ("POST", "/nowhere", b"x", {}, 404, "ResourceNotFoundException", "Requested resource is not found"),
    ("DELETE", "/predictions/mirror", None, {}, 405, "MethodNotAllowedException", "Requested method is not allowed"),
    ("POST", "/predictions/mirror", b"x" * 100001, {}, 413, "RequestTooLargeException", "max_request_size"),
    ("POST", "/predictions/outputs", b"refuse", {}, 418, "BadRequestException", "I am a teapot"),
    ("POST", "/predictions/outputs", b"raise", {}, 500, "InternalServerException", "the weights are upside down"),
    ("POST", "/predictions/outputs", b"odd", {}, 500, "InternalServerException", "object"),
    (
        "POST",
        "/predictions/mirror",
        b'{"a":',
        {"Content-Type": "application/json"},
        400,
        "BadRequestException",
        "not valid JSON",
    ),
    (
        "POST",
        "/predictions/mirror",
        b"x",
        {"X-Request-Timeout": "soon"},
        400,
        "BadRequestException",
        "x-request-timeout",
    ),
    (
        "POST",
        "/predictions/mirror",
        b"--yy",
        {"Content-Type": "multipart/form-data; boundary=xx"},
        400,
        "BadRequestException",
        "multipart",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "kind", "message"), ERRORS)
def test_errors_are_json_with_code_type_and_a_message_that_helps(
    server: LiveServer,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    status: int,
    kind: str,
    message: str,
) -> None:
    reply = server.request(method, path, body, headers)
    code, type_name, text = reply.error()
    assert (reply.status, code, type_name) == (status, status, kind)
    assert message in text
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.headers["x-request-id"]


def test_health_tells_the_truth(server: LiveServer) -> None:
    assert server.request("GET", "/ping").json() == {"status": "Healthy"}
    assert server.request("GET", "/health/live").status == 200
    assert server.request("GET", "/health/ready").json() == {"ready": True, "models": {"mirror": True, "outputs": True}}
    assert server.request("GET", "/models/mirror/ready").json()["ready"] is True
    assert server.request("GET", "/models/nobody/ready").status == 404


def exchange(server: LiveServer, data: bytes, pieces: int = 1) -> bytes:
    """Everything the server sends on one connection until it closes it."""
    with socket.create_connection(("127.0.0.1", server.port()), timeout=10) as connection:
        step = max(1, len(data) // pieces)
        for start in range(0, len(data), step):
            connection.sendall(data[start : start + step])
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


def message(path: str, body: bytes = b"", *, close: bool = False, chunked: bool = False) -> bytes:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    end = b"Connection: close\r\n" if close else b""
    payload = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n%b\r\n%b" % (path.encode(), framing, end, payload)


def bodies(answers: bytes) -> list[str]:
    """What the mirror saw, of each answer in turn; health answers as "ping"."""
    found = re.findall(rb'"value": "([^"]*)"|"(status)": "Healthy"', answers)
    return [value.decode() or "ping" for value, _ in found]


@pytest.mark.parametrize("pieces", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    "script",
    [
        ["a", "b", "c"],
        ["a", "ping", "b"],
        ["ping", "a", "ping"],
        ["a", "chunked:b", "ping", "chunked:c"],
        ["a", "ping", "ping", "a"],
    ],
    ids="+".join,
)
def test_pipelined_requests_of_both_lanes_are_answered_once_each_and_in_order(
    server: LiveServer, script: list[str], pieces: int
) -> None:
    data = b""
    for position, step in enumerate(script):
        kind, _, body = step.rpartition(":")
        path = "/ping" if step == "ping" else "/predictions/mirror"
        body = "" if step == "ping" else body
        data += message(path, body.encode(), chunked=kind == "chunked", close=position == len(script) - 1)
    assert bodies(exchange(server, data, pieces)) == [step.rpartition(":")[2] for step in script]


def test_expect_100_continue_is_answered_before_the_body(server: LiveServer) -> None:
    head = b"POST /predictions/mirror HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", server.port()), timeout=10) as connection:
        connection.sendall(head + b"Connection: close\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(b"hi")
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert bodies(received) == ["hi"]


def test_http_1_0_gets_a_whole_answer_and_the_end_of_the_connection(server: LiveServer) -> None:
    received = exchange(server, b"POST /predictions/mirror HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")
    assert bodies(received) == ["hi"]
    assert b"transfer-encoding" not in received.lower()


def test_the_access_log_has_one_line_per_request_with_id_and_phases(server: LiveServer) -> None:
    server.request("POST", "/predictions/mirror", b"x", {"X-Request-Id": "find-me"})
    server.request("GET", "/nowhere", None, {"X-Request-Id": "lost"})
    server.wait_for(lambda: "find-me" in server.log_text() and "lost" in server.log_text())
    (line,) = [line for line in server.log_text().splitlines() if "find-me" in line]
    assert re.search(
        r'"POST /predictions/mirror HTTP/1.1" 200 \d+ [\d.]+ find-me queue=.*transfer=.*pre=.*infer=.*post=.*batch=1',
        line,
    )
    (line,) = [line for line in server.log_text().splitlines() if " lost" in line]
    assert '"GET /nowhere HTTP/1.1" 404' in line


def test_the_doors_answer_alike(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Status, body and every header that is not about the connection or the moment."""
    answers: list[list[Any]] = []
    for fast in ("true", "false"):
        model = f"outputs={HANDLERS / 'outputs.py'}"
        with running(tmp_path_factory.mktemp("alike"), model, settings={"SERVER_FAST_LANE": fast}) as live:
            replies = [live.predict("outputs", kind) for kind in (b"dict", b"refuse", b"raise", b"header", b"stream")]
            replies += [live.predict("outputs", b"dict", x_request_timeout="never")]
        answers.append([])
        for reply in replies:
            headers = {name: value for name, value in reply.headers.items() if name not in VOLATILE}
            answers[-1].append((reply.status, headers, json.loads(reply.body) if reply.status >= 400 else reply.body))
    assert answers[0] == answers[1]
