"""gRPC clients that mean harm: bombs, storms of cancelled calls, metadata that wants to be lines of the log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf.empty_pb2 import Empty
from support.grpc_client import TIMEOUT, Stubs, ask, refusal, serving

from mlserve.rpc.generated import inference_pb2_grpc

MODEL = f"modes={Path(__file__).parent / 'handlers' / 'modes.py'}"
LIMIT = 1_000_000
BOMB = 200_000_000  # bytes; 200 kB when compressed


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    settings = {"SERVER_MAX_REQUEST_SIZE": str(LIMIT), "LOG_ACCESS_LOG": "-"}
    with serving(tmp_path_factory.mktemp("server"), MODEL, settings=settings) as found:
        yield found


def test_a_compressed_message_counts_with_what_it_becomes(stubs: Stubs) -> None:
    server = psutil.Process(stubs.server.process.pid)
    target = f"127.0.0.1:{stubs.server.port('grpc_inference')}"
    with grpc.insecure_channel(target, compression=grpc.Compression.Gzip) as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        assert stub.Predictions(ask("x" * 10_000), timeout=TIMEOUT).prediction == b"x" * 10_000
        before = server.memory_info().rss
        assert refusal(lambda: stub.Predictions(ask("\0" * BOMB), timeout=TIMEOUT))[0] == "RESOURCE_EXHAUSTED"
        assert server.memory_info().rss - before < BOMB / 4
    assert stubs.predict("after") == b"after"


def test_a_storm_of_cancelled_calls_leaves_server_and_worker_as_they_were(stubs: Stubs) -> None:
    workers = stubs.server.worker_pids("modes")
    for _ in range(10):
        calls = [stubs.inference.Predictions.future(ask(f"storm-{number}"), timeout=TIMEOUT) for number in range(100)]
        for call in calls:
            call.cancel()
    assert stubs.predict("after") == b"after"
    assert stubs.server.worker_pids("modes") == workers
    assert "Healthy" in stubs.inference.Ping(Empty(), timeout=TIMEOUT).health


@pytest.mark.parametrize("key", ["x-request-id", "authorization", "user-agent"])
@pytest.mark.parametrize("value", ['" 200 0 "', "a b\tc", "x" * 4000, "\x7f"])
def test_metadata_writes_no_field_of_the_access_log(stubs: Stubs, key: str, value: str) -> None:
    with contextlib.suppress(grpc.RpcError):  # gRPC itself refuses what HTTP/2 does not allow
        stubs.inference.Ping(Empty(), timeout=TIMEOUT, metadata=((key, value),))
    last = f"last-{key}-{len(value)}"
    stubs.inference.Ping(Empty(), timeout=TIMEOUT, metadata=(("x-request-id", last),))
    stubs.server.wait_for(lambda: last in stubs.server.log_text())  # lines are written in order
    assert value not in stubs.server.log_text()
