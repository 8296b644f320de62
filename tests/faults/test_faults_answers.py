"""Handlers that fail a request: what the client is told, and that nothing else comes to harm."""

import json
import threading
import time

import pytest
from support.raw import RawConnection, post
from support.server import HANDLERS, LiveServer, Reply, running

MODELS = (
    "raises", "not_a_list", "wrong_length", "not_encodable", "bad_item", "refuses_item", "allocates_too_much",
    "limited_memory", "sets_headers", "prints_a_lot", "prints_forever", "awaits", "echo",
    "sets_status",
)  # fmt: skip
CONFIG = """
[model.bad_item]
batch_size = 8
max_batch_delay_ms = 5000
batch_policy = "window"

[model.refuses_item]
batch_size = 4
max_batch_delay_ms = 5000
batch_policy = "window"
"""


@pytest.fixture(scope="module", params=["fast", "aiohttp"])
def server(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("faults")
    (directory / "mlserve.toml").write_text(CONFIG)
    settings = {"SERVER_FAST_LANE": str(request.param == "fast").lower(), "LOG_ACCESS_LOG": "off"}
    names = [f"{name}.py" for name in MODELS]
    with running(directory, *names, settings=settings, store=HANDLERS, args=["--config", "mlserve.toml"]) as live:
        yield live


@pytest.fixture(autouse=True)
def untouched(server):
    """No request fault ends a worker or disturbs another model."""
    yield
    assert server.predict("echo", b"still here").body == b"still here"
    assert server.restarts() == 0
    assert server.request("GET", "/ping").status == 200


@pytest.mark.parametrize(
    ("model", "body", "status", "kind", "message"),
    [
        ("raises", b"x", 500, "InternalServerException", "Prediction failed: ValueError: this handler always fails"),
        ("not_a_list", b"x", 500, "InternalServerException", "must return a list with one element per request"),
        ("wrong_length", b"x", 500, "InternalServerException", "got 1 requests and returned 2 elements"),
        ("not_encodable", b"set", 500, "InternalServerException", "Unsupported model output data type set"),
        ("allocates_too_much", b"x", 507, "OutOfMemoryException", "MemoryError"),
        ("limited_memory", b"4096", 507, "OutOfMemoryException", "MemoryError"),
    ],
)
def test_fault_of_a_handler_is_told_by_status_type_and_message(server, model, body, status, kind, message):
    for _ in range(3):
        reply = server.predict(model, body)
        assert reply.status == status, reply
        code, told, text = reply.error()
        assert (code, told) == (status, kind)
        assert message in text
        assert "Traceback" not in text
    traceback = {"raises": "ValueError: this handler always fails", "allocates_too_much": "MemoryError"}.get(model)
    if traceback:
        tail = "\n".join(server.describe(model)["workers"][0]["logTail"])
        assert "Traceback (most recent call last)" in tail
        assert traceback in tail


def test_memory_that_is_enough_is_given(server):
    assert server.predict("limited_memory", b"1").body == b"1048576"


def together(server: LiveServer, model: str, bodies: list[bytes]) -> list[Reply]:
    """Answers to requests that are sent at the same time, each on a connection of its own."""
    replies: dict[int, Reply] = {}
    threads = [
        threading.Thread(target=lambda n=number, b=body: replies.__setitem__(n, server.predict(model, b)))
        for number, body in enumerate(bodies)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [replies[number] for number in range(len(bodies))]


def test_bad_item_does_not_fail_its_batch_mates(server):
    before = server.metric("mlserve_batch_size_count", model="bad_item")
    bodies = [b"good %d" % number for number in range(8)]
    bodies[3] = bodies[6] = b"bad"
    replies = together(server, "bad_item", bodies)
    assert server.metric("mlserve_batch_size_count", model="bad_item") == before + 1, "it must have been one batch"
    for body, reply in zip(bodies, replies, strict=True):
        if body == b"bad":
            assert reply.error() == (500, "InternalServerException", "Prediction failed: ValueError: a bad item")
        else:
            assert (reply.status, reply.body) == (200, body)


def test_item_refused_by_element_keeps_its_own_status(server):
    replies = together(server, "refuses_item", [b"a", b"refuse", b"c", b"d"])
    assert [reply.status for reply in replies] == [200, 418, 200, 200]
    assert replies[1].error()[2] == "no coffee"


def test_item_refused_by_exception_fails_alone(server):
    replies = together(server, "refuses_item", [b"a", b"b", b"raise", b"d"])
    assert [reply.status for reply in replies] == [200, 200, 418, 200]
    assert replies[2].error()[2] == "I am a teapot"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-a", "1\r\nset-cookie: stolen=1"),
        ("x-a", "1\nset-cookie: stolen=1"),
        ("x-a", "1\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("x-a\r\nset-cookie", "stolen=1"),
        ("x-a: 1\r\nset-cookie", "stolen=1"),
        ("set-cookie: stolen=1\r\nx-a", "1"),
        ("x a", "1"),
        ("", "1"),
        ("x-a", "\x00"),
        ("x-\u00e9", "1"),
        ("x-a", "\u2028\U0001f600"),
        ("content-length", "0"),
        ("Content-Length", "9999"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("x-request-id", "forged"),
        ("(content type)", "text/html\r\nset-cookie: stolen=1"),
        ("(reason)", "Fine\r\nset-cookie: stolen=1"),
    ],
)
def test_handler_cannot_split_or_reframe_an_answer(server, name, value):
    body = json.dumps({"name": name, "value": value}).encode()
    with RawConnection(server.port()) as client:
        for _ in range(2):  # the second answer shows that the first was framed rightly
            client.send(post("/predictions/sets_headers", body, "content-type: application/json", "x-request-id: mine"))
            reply = client.answer()
            assert reply is not None
            assert "set-cookie" not in reply.headers
            assert reply.headers["x-request-id"] == "mine"
            if reply.status < 300:
                assert reply.body == b"body"
            else:
                assert reply.status == 500
                reply.error()


@pytest.mark.parametrize("status", [204, 205, 304])
@pytest.mark.parametrize("form", ["whole", "stream"])
def test_status_without_a_body_does_not_shift_the_next_answer(server, status, form):
    """A body behind such a head is the next answer to a client, or to the proxy that shares the connection."""
    with RawConnection(server.port()) as client:
        for _ in range(2):
            client.send(post("/predictions/sets_status", b"%d %s" % (status, form.encode())))
            reply = client.answer()
            assert reply is not None
            assert (reply.status, reply.body) == (status, b"")
            assert reply.headers.get("content-length") == ("0" if status == 205 else None)
            assert "transfer-encoding" not in reply.headers
        client.send(post("/predictions/echo", b"in turn"))
        reply = client.answer()
        assert reply is not None
        assert (reply.status, reply.body) == (200, b"in turn")


@pytest.mark.parametrize("model", ["prints_a_lot", "prints_forever"])
def test_flood_of_output_holds_nothing_up(server, model):
    for number in range(5):
        body = b"%d" % number
        assert server.predict(model, body).body == body
    worker = server.describe(model)["workers"][0]
    assert 0 < len(worker["logTail"]) <= 50
    assert all(len(line) < 20_000 for line in worker["logTail"])


def test_flood_of_output_is_left_out_of_the_log_and_said_so(server):
    """Passed on without a bound, other models' requests took 200 ms and the log grew by 10 MB/s."""
    server.wait_for(lambda: "lines left out: more than 1000 in a second" in server.log_text())
    size = server.log.stat().st_size
    began = time.monotonic()
    server.wait_for(lambda: time.monotonic() - began > 1.0)
    assert server.log.stat().st_size - size < 2_000_000
