"""A running server whose clients open more connections, and send more at once, than it is to hold."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.raw import RawConnection, post
from support.server import LiveServer, running

from mlserve.rpc.generated import inference_pb2, inference_pb2_grpc

MIRROR = f"mirror={Path(__file__).parent / 'handlers' / 'mirror.py'}"
MOST = 4
MIB = 1 << 20


@pytest.fixture(scope="module", params=["fast", "aiohttp"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = {
        "SERVER_FAST_LANE": str(request.param == "fast").lower(),
        "SERVER_MAX_CONNECTIONS": MOST,
        "SERVER_MAX_REQUEST_SIZE": MIB,
        "SERVER_MAX_REQUEST_MEMORY": 2 * MIB,
        "GRPC_ENABLED": "true",
    }
    with running(tmp_path_factory.mktemp("intake"), MIRROR, settings=settings) as live:
        yield live


@contextlib.contextmanager
def taken(server: LiveServer, listener: str, port: int) -> Iterator[None]:
    """As many connections as there may be, all idle."""
    with contextlib.ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        server.wait_for(lambda: server.metric("mlserve_connections", listener=listener) == MOST)
        yield
    server.wait_for(lambda: server.metric("mlserve_connections", listener=listener) == 0)


def test_a_connection_too_many_is_not_left_without_an_answer(server: LiveServer) -> None:
    with taken(server, "inference", server.port()):
        before = server.metric("mlserve_connections_refused_total", listener="inference")
        for _ in range(5):
            with RawConnection(server.port()) as connection:
                connection.send(post("/predictions/mirror", b"hello"))
                reply = connection.answer()
                assert reply is not None
                code, _, message = reply.error()
                assert (reply.status, code) == (503, 503)
                assert "max_connections" in message
                assert reply.headers["retry-after"] == "1"
                assert reply.headers["connection"] == "close"
                assert connection.answer() is None
        assert server.metric("mlserve_connections_refused_total", listener="inference") == before + 5
        assert server.request("GET", "/models", api="management").status == 200  # has its own number
    assert server.predict("mirror", b"hello").status == 200
    assert server.log_text().count("connections of the inference API are refused") == 1


def test_a_grpc_client_too_many_does_not_try_again_hundreds_of_times_a_second(server: LiveServer) -> None:
    def call(patient: bool) -> grpc.RpcError | None:
        with grpc.insecure_channel(f"127.0.0.1:{server.port('grpc_inference')}") as channel:
            stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
            try:
                stub.Ping(inference_pb2.google_dot_protobuf_dot_empty__pb2.Empty(), timeout=60, wait_for_ready=patient)
            except grpc.RpcError as error:
                return error
        return None

    with taken(server, "gRPC inference", server.port("grpc_inference")):
        error = call(False)
        assert error is not None
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "HTTP status 503" in error.details()
        assert 1 <= server.metric("mlserve_connections_refused_total", listener="gRPC inference") < 50  # it waits
    assert call(True) is None


def test_slow_bodies_are_refused_beyond_the_memory_that_they_may_take(server: LiveServer) -> None:
    """Chunked, as bodies of a known length lie in the memory of the workers while that has room."""
    head = b"POST /predictions/mirror HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\ndbba0\r\n"
    with (
        RawConnection(server.port()) as one,
        RawConnection(server.port()) as two,
        RawConnection(server.port()) as three,
    ):
        for connection in (one, two):
            connection.send(head + b"y" * 900_000)
        server.wait_for(lambda: server.metric("mlserve_request_memory_bytes") >= 1_800_000)
        three.send(head + b"y" * 900_000)
        reply = three.answer()
        assert reply is not None
        assert reply.status == 503
        assert "max_request_memory" in reply.error()[2]
        assert reply.headers["retry-after"] == "1"
        assert server.predict("mirror", b"hello").status == 200
        for connection in (one, two):
            connection.send(b"\r\n0\r\n\r\n")
            whole = connection.answer()
            assert whole is not None
            assert whole.status == 200
    server.wait_for(lambda: server.metric("mlserve_request_memory_bytes") == 0)
    assert server.metric("mlserve_request_memory_refused_total") >= 1
