"""TorchServe's log files and console, line by line, as what ships and reads logs expects them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from support.drop_in import DropIn, archive

from mlserve.rpc.generated import inference_pb2, inference_pb2_grpc

SOURCE = """
import logging, os, sys

logging.getLogger("mine").info("at import")

class Talker:
    def initialize(self, context):
        print("to stdout")
        print("to stderr", file=sys.stderr)

    def handle(self, data, context):
        word = data[0]["body"].decode() if "body" in data[0] else "rpc"
        if word == "die":
            os._exit(3)
        print(f"[{word}] one\\n[{word}] two", flush=True)
        logging.getLogger("mine").info("[%s] logged", word)
        if word == "fail":
            raise ValueError("no good")
        return [word]
"""
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"
WORKER = r"W-9000-talker_1\.0"


@pytest.fixture(scope="module")
def server(start: Callable[..., DropIn], tmp_path_factory: pytest.TempPathFactory) -> DropIn:
    """One model with one worker, which is ready."""
    store = tmp_path_factory.mktemp("store")
    archive(store, "talker", SOURCE)
    server = start({}, "--models", "talker.mar", store=store)
    assert predict(server, "first") == 200
    return server


def predict(server: DropIn, word: str) -> int:
    """Status of a prediction."""
    headers = {"Content-Type": "application/octet-stream"}
    return server.ask("POST", "/predictions/talker", word, headers).status


def find(path: Path, pattern: str, seconds: float = 20.0) -> re.Match[str]:
    """The line of a log that matches whole; it may be on its way yet."""
    until = time.monotonic() + seconds
    while True:
        text = path.read_text(errors="replace")
        if (found := re.search(rf"^{pattern}$", text, re.MULTILINE)) is not None:
            return found
        assert time.monotonic() < until, f"{pattern}\nis not in\n{text[-4000:]}"
        time.sleep(0.05)


def test_every_file_is_there(server: DropIn) -> None:
    files = {path.name for path in (server.directory / "logs").glob("*.log")}
    assert files == {"access_log.log", "model_log.log", "model_metrics.log", "ts_log.log", "ts_metrics.log"}


@pytest.mark.parametrize(
    ("api", "method", "path", "status"),
    [
        ("inference", "GET", "/ping", 200),
        ("inference", "POST", "/predictions/none?a=b%20c", 404),
        ("management", "GET", "/models?limit=1", 200),
        ("management", "DELETE", "/models/none", 404),
    ],
)
def test_a_request_is_one_line_of_the_access_log(server: DropIn, api: str, method: str, path: str, status: int) -> None:
    assert server.ask(method, path, api=api).status == status
    tail = rf'/127\.0\.0\.1:\d+ "{method} {re.escape(path)} HTTP/1\.1" {status} \d+'
    find(server.directory / "logs" / "access_log.log", rf"{STAMP} - {tail}")
    for log in (server.directory / "logs" / "ts_log.log", server.log):
        find(log, rf"{STAMP} \[INFO \] \S+ ACCESS_LOG - {tail}")


def test_a_call_over_grpc_is_one_line_of_the_access_log(server: DropIn) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc_inference']}") as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        stub.Ping(Empty(), timeout=20)
        request = inference_pb2.PredictionsRequest(model_name="none", input={"data": b"x"})
        with pytest.raises(grpc.RpcError):
            stub.Predictions(request, timeout=20)
    log = server.directory / "logs" / "access_log.log"
    service = r"org\.pytorch\.serve\.grpc\.inference\.InferenceAPIsService"
    find(log, rf'{STAMP} - /?127\.0\.0\.1:\d+ "gRPC {service}/Ping HTTP/2\.0" 0 \d+')
    find(log, rf'{STAMP} - /?127\.0\.0\.1:\d+ "gRPC {service}/Predictions HTTP/2\.0" 13 \d+')


def test_what_a_worker_writes_is_a_line_of_the_model_log(server: DropIn) -> None:
    assert predict(server, "talk") == 200
    for log in ("model_log.log", "ts_log.log"):
        path = server.directory / "logs" / log
        for line in ("to stdout", r"\[talk\] one", r"\[talk\] two", r"\[talk\] logged"):
            find(path, rf"{STAMP} \[INFO \] {WORKER}-stdout MODEL_LOG - {line}")
        find(path, rf"{STAMP} \[WARN \] {WORKER}-stderr MODEL_LOG - to stderr")
        find(path, rf"{STAMP} \[INFO \] {WORKER}-stdout MODEL_LOG - \[PID\]\d+")
    find(server.log, rf"{STAMP} \[INFO \] {WORKER}-stdout MODEL_LOG - \[talk\] one")


def test_a_failure_of_the_handler_has_its_traceback_in_the_model_log(server: DropIn) -> None:
    assert predict(server, "fail") == 503
    log = server.directory / "logs" / "model_log.log"
    for line in (r"Traceback \(most recent call last\):", r'    raise ValueError\("no good"\)', "ValueError: no good"):
        find(log, rf"{STAMP} \[(INFO |ERROR)\] {WORKER}-stdout MODEL_LOG - {line}")


def test_a_worker_that_dies_and_comes_back_is_told_in_torchserves_lines(server: DropIn) -> None:
    assert predict(server, "die") == 500
    assert predict(server, "again") == 200
    log, thread = server.directory / "logs" / "ts_log.log", r"\S+ org\.pytorch\.serve\.wlm\.WorkerThread"
    for line in (
        "9000 Worker disconnected. WORKER_MODEL_LOADED",
        r"Auto recovery start timestamp: \d+",
        r"Retry worker: 9000 in 1 seconds\.",
        "Auto recovery succeeded, reset recoveryStartTS",
    ):
        find(log, rf"{STAMP} \[INFO \] {thread} - {line}")


def test_the_ready_line_and_the_doors_are_on_the_console(server: DropIn) -> None:
    find(server.log, r"Model server started\.")
    for api, name in (("inference", "Inference"), ("management", "Management"), ("metrics", "Metrics")):
        line = rf"{name} API bind to: http://127\.0\.0\.1:{server.ports[api]}"
        find(server.log, rf"{STAMP} \[INFO \] main org\.pytorch\.serve\.ModelServer - {line}")
