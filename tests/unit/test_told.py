"""What the fast lane answers without a model: the same as aiohttp's door would, and nothing that is not its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.lane_client import OK, Client, post, with_client

from mlserve.protocols.torchserve import HttpOptions
from mlserve.rest.inference import InferenceApi
from mlserve.rest.told import Told, health_answer

GET = b"GET"


class Style:
    options = HttpOptions(open_inference=True)


def told(client: Client, open_inference: bool = True) -> Told:
    return Told(client.service, HttpOptions(open_inference=open_inference), 1000)


def answer(client: Client, path: str, method: bytes = GET, headers: Any = ()) -> tuple[int, Any] | None:
    route = told(client).route(method, path.encode(), headers)
    if route is None:
        return None
    assert route.tell is not None
    given = route.tell()
    return given.status, json.loads(bytes(given.body))


def test_probes_say_what_the_service_says() -> None:
    def check(client: Client) -> None:
        client.service.starting = True
        assert answer(client, "/ping") == (500, {"status": "Unhealthy"})
        assert answer(client, "/health/ready") == (503, {"ready": False, "models": {"m": True}})
        assert answer(client, "/health/live") == (200, {"live": True})
        client.service.starting = False
        assert answer(client, "/ping/") == (200, {"status": "Healthy"})
        assert answer(client, "/health/ready") == (200, {"ready": True, "models": {"m": True}})
        assert answer(client, "/v2/health/ready") == (200, {"ready": True})
        assert told(client, open_inference=False).route(GET, b"/v2/health/ready", ()) is None

    with_client(check)


def test_both_doors_know_the_same_probes() -> None:
    def check(client: Client) -> None:
        api = InferenceApi(client.service, Style(), 1000, shared=False)  # type: ignore[arg-type]
        paths = {"ping": "/ping", "live": "/health/live", "ready": "/health/ready"}
        paths |= {"v2_live": "/v2/health/live", "v2_ready": "/v2/health/ready"}
        assert {name for name, action in api._actions.items() if action == api._health} == set(paths)
        for name, path in paths.items():
            assert answer(client, path) == health_answer(client.service, name)

    with_client(check)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/models/m/ready", ()),  # not one of them
        ("POST", "/ping", ()),
        ("GET", "/ping", ((b"Content-Length", b"3"),)),  # a body that somebody has to read
        ("GET", "/v2", ()),
        ("POST", "/predictions/m/1", ()),  # there is such a model: the table has it, or a version that a URL escapes
        ("POST", "/predictions/%6d", ()),
        ("POST", "/predictions/n/1/more", ()),
        ("POST", "/predictions/n", ((b"Expect", b"100-continue"),)),
        ("POST", "/predictions/n", ((b"Transfer-Encoding", b"chunked"),)),
        ("POST", "/predictions/n", ((b"content-length", b"1001"),)),
        ("POST", "/predictions/\xe4", ()),
    ],
)
def test_the_rest_is_left_to_aiohttp(method: str, path: str, headers: Any) -> None:
    with_client(lambda client: pytest.fail(path) if answer(client, path, method.encode(), headers) else None)


def test_a_model_that_is_not_there_leaves_the_connection_on_the_fast_lane() -> None:
    def check(client: Client) -> None:
        client.send(post(path="/predictions/n"))
        client.send(post(path="/predictions/m/2"))
        client.send(post(path="/predictions/m"))
        assert client.statuses() == [404, 404]
        assert b"Model not found: n" in client.transport.written
        assert b"cache-control: no-cache" in client.transport.written
        assert len(client.slot.batches) == 1

    with_client(check)


def test_who_asks_for_tokens_asks_before_models_are_told_of() -> None:
    def check(client: Client) -> None:
        client.shared.guard = object()  # type: ignore[assignment]
        assert client.shared.told(b"POST", b"/predictions/n", ()) is None
        assert client.shared.told(b"GET", b"/ping", ()) is None

    with_client(check)


def test_probes_among_pipelined_requests_are_answered_in_turn() -> None:
    def check(client: Client) -> None:
        client.send(post() + b"GET /health/live HTTP/1.1\r\n\r\n")
        assert client.statuses() == []
        client.answer(OK)
        assert client.statuses() == [200, 200]
        assert client.transport.written.endswith(b'{\n  "live": true\n}\n')

    with_client(check)
