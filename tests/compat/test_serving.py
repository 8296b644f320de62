"""What happens while models serve: bytes of an answer, streams, batches, deaths, deadlines, and requests in the way."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.drop_in import DropIn, archive
from support.server import Reply

STREAM = """
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    kind = bytes(data[0]["body"]).decode()
    if kind == "typed":
        context.set_response_content_type(0, "text/event-stream")
        context.set_response_header(0, "X-Mine", "1")
        context.set_response_status(201, "made", 0)
    for number in range(3):
        send_intermediate_predict_response([f"p{number} "], context.request_ids, "part", 200, context)
    if kind == "raise":
        raise ValueError("no")
    return [""] if kind == "empty" else ["end"]
"""
LIFE = """
import os
import time

def handle(data, context):
    if data is None:
        return None
    kind = bytes(data[0]["body"]).decode()
    if kind.startswith("exit"):
        os._exit(int(kind[4:]))
    if kind.startswith("sleep"):
        time.sleep(float(kind[5:]))
    return ["alive"] * len(data)
"""
KILLED = """
import os

class Handler:
    def initialize(self, context):
        os._exit(137)

    def handle(self, data, context):
        return ["x"] * len(data)
"""
BATCH = """
def handle(data, context):
    if data is None:
        return None
    if any(bytes(row["body"]) == b"bad" for row in data):
        raise ValueError("bad row")
    return [str(len(data))] * len(data)
"""
ECHO = """
def handle(data, context):
    return None if data is None else [next(iter(row.values())) for row in data]
"""
IDS = """
def handle(data, context):
    return None if data is None else [context.get_request_id(index) for index in range(len(data))]
"""
SLOW_ONE = {"model": {"configFile": "c.yaml"}}


@pytest.fixture(scope="module")
def server(start) -> DropIn:
    live: DropIn = start()
    store: Path = live.store
    sources = {"stream": STREAM, "life": LIFE, "killed": KILLED, "batch": BATCH, "echo": ECHO, "ids": IDS}
    for name, source in sources.items():
        archive(store, name, source)
    archive(store, "ticket", LIFE, c__yaml="useJobTicket: true\n", **SLOW_ONE)
    archive(store, "hurry", LIFE, c__yaml="clientTimeoutInMills: 200\n", **SLOW_ONE)
    for query in (
        "noop.mar", "stream.mar", "life.mar&response_timeout=2", "batch.mar&batch_size=4&max_batch_delay=1500",
        "echo.mar", "ids.mar", "ticket.mar", "hurry.mar",
    ):  # fmt: skip
        assert live.manage("POST", f"/models?url={query}&initial_workers=1").status == 200, live.log.read_text()
    return live


def together(server: DropIn, path: str, bodies: list[str], gap: float = 0.0) -> list[Reply]:
    """Requests side by side, each on its own connection, ``gap`` seconds apart."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        asked = []
        for body in bodies:
            asked.append(pool.submit(server.ask, "POST", path, body))
            time.sleep(gap)
        return [each.result() for each in asked]


def test_an_answer_has_torchserves_bytes(server: DropIn) -> None:
    with socket.create_connection(("127.0.0.1", server.ports["inference"]), 10) as client:
        for _ in range(2):  # the connection stays
            client.sendall(b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
            answer = b""
            while not answer.endswith(b"OK"):
                answer += client.recv(65536)
            lines = answer.split(b"\r\n")
            assert lines.pop(1).startswith(b"x-request-id: ")
            assert b"\r\n".join(lines) == (
                b"HTTP/1.1 200 \r\nPragma: no-cache\r\nCache-Control: no-cache; no-store, must-revalidate, private\r\n"
                b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nOK"
            )


def test_a_handler_knows_the_id_that_the_client_gets(server: DropIn) -> None:
    reply = server.ask("POST", "/predictions/ids", b"x", {"x-request-id": "mine"})
    assert reply.body.decode() == reply.headers["x-request-id"] != "mine"


@pytest.mark.parametrize("body", [b"", b"\x00\xff" * 1000, b'{"a": 1}'])
def test_bytes_come_back_as_they_went(server: DropIn, body: bytes) -> None:
    assert server.ask("POST", "/predictions/echo", body).body == body
    form = b'--cut\r\nContent-Disposition: form-data; name="data"; filename="f"\r\n\r\n' + body + b"\r\n--cut--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=cut"}
    assert server.ask("POST", "/predictions/echo", form, kind).body == body


def test_a_stream_is_chunked_and_says_so(server: DropIn) -> None:
    reply = server.ask("POST", "/predictions/stream", b"plain")
    assert (reply.status, reply.body) == (200, b"p0 p1 p2 end")
    assert (reply.headers["transfer-encoding"], reply.headers["ts_stream_next"]) == ("chunked", "true")
    assert not {"content-length", "content-type"} & reply.headers.keys()
    assert server.ask("POST", "/predictions/stream", b"empty").body == b"p0 p1 p2 "


def test_a_stream_begins_with_what_its_handler_had_set(server: DropIn) -> None:
    reply = server.ask("POST", "/predictions/stream", b"typed")
    assert (reply.status, reply.headers["content-type"], reply.headers["x-mine"]) == (201, "text/event-stream", "1")
    assert reply.body == b"p0 p1 p2 end"


def test_a_stream_that_fails_breaks_off(server: DropIn) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        server.ask("POST", "/predictions/stream", b"raise")
    assert server.ask("POST", "/predictions/stream", b"plain").status == 200


def test_requests_share_a_batch_and_its_failure(server: DropIn) -> None:
    assert {reply.body for reply in together(server, "/predictions/batch", ["a", "b", "c", "d"])} == {b"4"}
    replies = together(server, "/predictions/batch", ["a", "bad", "c", "d"])
    assert {reply.error() for reply in replies} == {(503, "InternalServerException", "Prediction failed")}


@pytest.mark.parametrize(("kind", "status"), [("exit1", 500), ("exit137", 507), ("sleep4", 500)])
def test_a_worker_that_ends_or_is_silent_is_told_and_replaced(server: DropIn, kind: str, status: int) -> None:
    reply = server.ask("POST", "/predictions/life", kind)
    assert (reply.status, reply.error()) == (status, (status, "InternalServerException", "Worker died."))
    assert server.ask("GET", "/ping").status == 200
    assert server.ask("POST", "/predictions/life", b"next").body == b"alive"


def test_a_worker_that_is_killed_while_it_loads_has_no_memory(server: DropIn) -> None:
    reply = server.manage("POST", "/models?url=killed.mar&initial_workers=1")
    assert reply.error()[2] == "Failed to start workers for model killed version: 1.0"
    # TorchServe asks for the exit code when the connection ends: it is not always there by then, and the status is 500.
    assert reply.status == 507 or (reply.status == 500 and not server.ours)


def test_a_job_ticket_is_a_free_worker(server: DropIn) -> None:
    first, second = together(server, "/predictions/ticket", ["sleep1.5", "x"], gap=0.5)
    assert first.body == b"alive"
    assert (second.status, second.error()[1]) == (503, "ServiceUnavailableException")
    assert second.error()[2].startswith('Model "ticket" has no worker to serve inference request.')


def test_a_request_that_takes_too_long_is_told(server: DropIn, differs: Callable[[str], None]) -> None:
    differs("client-timeout")
    assert server.ask("POST", "/predictions/hurry", b"sleep0.6").status == 504


def test_a_version_without_workers_is_named_with_torchserves_quote(server: DropIn) -> None:
    assert server.manage("POST", "/models?url=echo.mar&model_name=idle&initial_workers=0").status == 200
    reply = server.ask("POST", "/predictions/idle/1.0", b"x")
    assert reply.error()[2].startswith('Model "idle" Version 1.0" has no worker to serve inference request.')


def test_a_body_that_is_too_large_for_a_command_is_not_waited_for(server: DropIn) -> None:
    with socket.create_connection(("127.0.0.1", server.ports["management"]), 10) as client:
        client.sendall(b"POST /models HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n")


def test_every_door_describes_itself(server: DropIn) -> None:
    for api in ("inference", "management", "metrics"):
        for method, path in (("OPTIONS", "/"), ("GET", "/api-description"), ("GET", "/api-description/")):
            document = server.ask(method, path, api=api).json()
            assert (document["openapi"], document["info"]["title"]) == ("3.0.1", "TorchServe APIs")
        assert server.ask("GET", "/", api=api).status == 405
    assert "/metrics" in server.ask("OPTIONS", "/", api="metrics").json()["paths"]
    described = server.ask("OPTIONS", "/models/noop", api="management").json()
    assert described["info"]["title"] == "RESTful Management API for: noop"
    assert server.ask("OPTIONS", "/models/none", api="management").error()[1] == "ModelNotFoundException"
