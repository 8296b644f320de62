"""Inference and management on one address, as for SageMaker, with metrics there as well; and a Unix socket for one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.drop_in import DropIn, free_ports

from mlserve.protocols import openapi_torchserve as documents


@pytest.fixture(scope="module")
def server(start) -> DropIn:
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    live = start({"inference_address": address, "management_address": address, "metrics_mode": "prometheus"})
    live.ports.update(inference=port, management=port)
    live.status("POST", "/models?url=klass.mar&initial_workers=1")
    return live


@pytest.mark.parametrize(
    ("method", "path", "status", "shown"),
    [
        ("GET", "/ping", 200, b'"Healthy"'),
        ("POST", "/predictions/klass", 200, b"OK"),
        ("POST", "/models/klass/invoke", 200, b"OK"),
        ("GET", "/models", 200, b'"klass.mar"'),
        ("GET", "/models/klass", 200, b'"READY"'),
        ("GET", "/v1/models/klass", 200, b'"ready": true'),
        ("PUT", "/models/klass?min_worker=1&synchronous=true", 200, b"Workers scaled to 1 for model: klass"),
        ("PUT", "/models/klass/1.0/set-default", 200, b"Default version successfully updated"),
        ("GET", "/workflows", 200, b'"workflows": []'),
        ("GET", "/metrics?name[]=Requests2XX", 200, b"# TYPE Requests2XX counter"),
        ("GET", "/", 405, b"MethodNotAllowedException"),
        ("GET", "/nowhere", 404, b"ResourceNotFoundException"),
    ],
)
def test_one_address_has_every_route(server: DropIn, method: str, path: str, status: int, shown: bytes) -> None:
    reply = server.ask(method, path)
    assert (reply.status, shown in reply.body) == (status, True), reply


@pytest.mark.parametrize(("method", "path"), [("OPTIONS", "/"), ("GET", "/api-description")])
def test_one_address_describes_all_of_it(server: DropIn, method: str, path: str) -> None:
    def outline(document: dict[str, Any]) -> list[tuple[str, list[str]]]:
        return [(path, list(operations)) for path, operations in document["paths"].items()]

    assert outline(server.ask(method, path).json()) == outline(documents.single_listener_api())


def test_a_version_is_described_at_the_shared_address(server: DropIn, differs: Callable[[str], None]) -> None:
    differs("shared-listener")
    assert server.ask("GET", "/models/klass/1.0").json()[0]["modelVersion"] == "1.0"


def test_an_api_is_served_on_a_unix_socket(start: Callable[..., DropIn], tmp_path: Path) -> None:
    path = tmp_path / "i.sock"
    live = start({"inference_address": f"unix:{path}"})
    live.status("POST", "/models?url=klass.mar&initial_workers=1")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"POST /predictions/klass HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        answer = b""
        while not answer.endswith(b"\r\n\r\nOK"):
            answer += client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 ")
