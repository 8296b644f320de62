"""What gRPC's calls carry as TorchServe's clients know it: rows, answers, statuses, limits, streams and sequences."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from support.drop_in import DropIn, archive
from support.grpc_client import TIMEOUT, refusal

from mlserve.rpc.generated import inference_pb2, inference_pb2_grpc, management_pb2, management_pb2_grpc

ROWS = """
import json

NAMES = ("url_path", "explain", "x-test", "Content-Type", "data", "ts_request_sequence_end")

def handle(data, context):
    if data is None:
        return None
    seen = [context.get_request_header(0, name) for name in NAMES]
    return [json.dumps([sorted((key, type(value).__name__, value.decode()) for key, value in data[0].items()), seen])]
"""
KINDS = """
import os
import time
from ts.utils.util import PredictionException

ANSWERS = {b"bytes": b"ab", b"dict": {"a": 1}, b"list": [1, 2], b"none": None, b"int": 5, b"large": "x" * 200_000}

def handle(data, context):
    if data is None:
        return None
    value = bytes(data[0]["data"])
    if value == b"raise":
        raise ValueError("boom")
    if value.startswith(b"code"):
        raise PredictionException("odd", int(value[4:]))
    if value == b"sleep":
        time.sleep(2)
    if value == b"few":
        return []
    if value == b"no list":
        return "text"
    return [ANSWERS.get(value, "ok")]
"""
STREAM = """
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    for piece in ("a", "b"):
        send_intermediate_predict_response([piece], context.request_ids, "ok", 200, context)
    return ["end"]
"""
STATE = """
import json

def handle(data, context):
    if data is None:
        return None
    return [
        json.dumps([context.get_sequence_id(at), bytes(row["data"]).decode(), bool(header(context, at, "start")),
                    header(context, at, "end") == "true"])
        for at, row in enumerate(data)
    ]

def header(context, at, name):
    return context.get_request_header(at, "ts_request_sequence_" + name)
"""
SEQUENCES = """
minWorkers: 1
maxWorkers: 1
batchSize: 2
maxBatchDelay: 50
sequenceMaxIdleMSec: 5000
maxNumSequence: 4
maxSequenceJobQueueSize: 10
sequenceBatching: true
"""
MODELS = "rows.mar,kinds.mar,pieces.mar,state.mar"
LIMITS = {"load_models": MODELS, "max_request_size": 100_000, "max_response_size": 150_000}
SERVER = "org.pytorch.serve.http.InternalServerException"
NO_MODEL = "org.pytorch.serve.archive.model.ModelNotFoundException"
NO_WORKER = (
    'Model "idle" has no worker to serve inference request. Please use scale workers API to add workers. If this is a '
    "sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)
OPTIONS = [("grpc.max_receive_message_length", 1 << 20)]


@pytest.fixture(scope="module")
def live(start, tmp_path_factory: pytest.TempPathFactory) -> DropIn:
    store = tmp_path_factory.mktemp("store")
    for name, source in (("rows", ROWS), ("kinds", KINDS), ("pieces", STREAM), ("idle", KINDS)):
        archive(store, name, source)
    model = {"configFile": "model.yaml"}
    archive(store, "state", STATE, model=model, model__yaml=SEQUENCES)
    server = start(LIMITS, store=store)
    server.status("POST", "/models?url=idle.mar&initial_workers=0")
    return server


@pytest.fixture(scope="module")
def stub(live: DropIn) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{live.ports['grpc_inference']}", OPTIONS) as channel:
        yield inference_pb2_grpc.InferenceAPIsServiceStub(channel)


def ask(model: str, data: str | None = None, sequence: str | None = None, **inputs: str) -> Any:
    entries = {**({} if data is None else {"data": data}), **inputs}
    request = inference_pb2.PredictionsRequest(model_name=model, input={k: v.encode() for k, v in entries.items()})
    if sequence is not None:
        request.sequence_id = sequence
    return request


def predict(stub: Any, *args: Any, timeout: float = TIMEOUT, **inputs: str) -> bytes:
    return stub.Predictions(ask(*args, **inputs), timeout=timeout, metadata=(("x-test", "1"),)).prediction


@pytest.mark.parametrize(
    ("inputs", "row"),
    [
        ({}, []),
        ({"data": ""}, [["data", "bytearray", ""]]),
        ({"data": '{"a": 1}'}, [["data", "bytearray", '{"a": 1}']]),
        ({"a": "1", "b": "2"}, [["a", "bytearray", "1"], ["b", "bytearray", "2"]]),
        ({"": "x"}, [["", "bytearray", "x"]]),
    ],
)
def test_a_row_is_the_input_and_nothing_else(stub: Any, inputs: dict[str, str], row: list[Any]) -> None:
    found, headers = json.loads(predict(stub, "rows", **inputs))
    assert found == row
    assert headers == [None, None, None, None, {"content-type": ""} if "data" in inputs else None, None]


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("ok", b"ok"),
        ("bytes", b"ab"),
        ("dict", b'{\n  "a": 1\n}'),
        ("list", b"[\n  1,\n  2\n]"),
        ("none", b"null"),
        ("int", b"5"),
    ],
)
def test_an_answer_is_written_as_over_http(stub: Any, value: str, answer: bytes) -> None:
    assert predict(stub, "kinds", value) == answer


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ("raise", "UNAVAILABLE", "Prediction failed"),
        ("code400", "INVALID_ARGUMENT", "odd"),
        ("code404", "NOT_FOUND", "odd"),
        ("code418", "FAILED_PRECONDITION", "odd"),
        ("code503", "UNAVAILABLE", "odd"),
        ("code507", "INTERNAL", "odd"),
        ("few", "UNAVAILABLE", "number of batch response mismatched"),
        ("no list", "UNAVAILABLE", "Invalid model predict output"),
    ],
)
def test_a_handlers_failure_has_its_status(stub: Any, value: str, code: str, message: str) -> None:
    assert refusal(lambda: predict(stub, "kinds", value)) == (code, f"{message}\n{SERVER}")


def test_a_model_without_workers_is_internal(stub: Any) -> None:
    assert refusal(lambda: predict(stub, "idle", "x")) == ("INTERNAL", f"{NO_WORKER}\nInternalServerException.()")


def test_a_deadline_that_passes_leaves_the_model_serving(stub: Any) -> None:
    assert refusal(lambda: predict(stub, "kinds", "sleep", timeout=0.5))[0] == "DEADLINE_EXCEEDED"
    assert predict(stub, "kinds", "x") == b"ok"


def test_a_message_may_have_the_size_that_the_settings_give(stub: Any, live: DropIn) -> None:
    assert predict(stub, "kinds", "y" * 99_900) == b"ok"
    codes = {"RESOURCE_EXHAUSTED"} if live.ours else {"CANCELLED", "RESOURCE_EXHAUSTED"}
    assert refusal(lambda: predict(stub, "kinds", "y" * 100_001))[0] in codes
    with grpc.insecure_channel(f"127.0.0.1:{live.ports['grpc_management']}") as channel:
        management = management_pb2_grpc.ManagementAPIsServiceStub(channel)
        long = management_pb2.DescribeModelRequest(model_name="y" * 100_001)
        assert refusal(lambda: management.DescribeModel(long, timeout=TIMEOUT))[0] in codes


def test_an_answer_beyond_the_limit_fails_and_the_model_serves_on(stub: Any, differs: Callable[[str], None]) -> None:
    differs("large-response")
    code, details = refusal(lambda: predict(stub, "kinds", "large"))
    assert code == "UNAVAILABLE"
    assert "max_response_size" in details
    assert predict(stub, "kinds", "x") == b"ok"


def test_a_stream_has_a_message_per_piece(stub: Any) -> None:
    answers = stub.StreamPredictions(ask("pieces", "x"), timeout=TIMEOUT)
    assert [answer.prediction for answer in answers] == [b"a", b"b", b"end"]


@pytest.mark.parametrize(
    ("model", "details"),
    [("none", f"Model not found: none\n{NO_MODEL}"), ("", "Parameter model_name is required.\nBadRequestException.()")],
)
def test_a_stream_that_cannot_begin_is_internal(stub: Any, model: str, details: str) -> None:
    assert refusal(lambda: list(stub.StreamPredictions(ask(model, "x"), timeout=TIMEOUT))) == ("INTERNAL", details)


def converse(stub: Any, *requests: Any) -> list[Any]:
    """The answers of one StreamPredictions2; each request waits for the answer of the one before, and the end for the
    last, because TorchServe ends a call whose client has said all."""
    answered = threading.Semaphore(0)

    def one_by_one() -> Iterator[Any]:
        for request in requests:
            yield request
            answered.acquire(timeout=TIMEOUT)

    answers = []
    for answer in stub.StreamPredictions2(one_by_one(), timeout=TIMEOUT):
        answers.append(answer)
        answered.release()
    return answers


def test_a_sequences_requests_are_answered_in_order_beside_those_of_others(stub: Any, live: DropIn) -> None:
    begin = {"ts_request_sequence_start": "true"}
    answers = converse(
        stub,
        ask("state", "1", "a", **begin),
        ask("state", "1", "b", **begin),
        ask("state", "2", "a", ts_request_sequence_end="true"),
    )
    found = [json.loads(answer.prediction) for answer in answers]
    assert [row[:3] for row in found] == [["a", "1", True], ["b", "1", True], ["a", "2", False]]
    # TorchServe's test of the flag compares the name of a Java object, and so every request ends its sequence.
    assert [row[3] for row in found] == ([False, False, True] if live.ours else [True] * 3)


def test_a_request_without_sequence_is_refused_and_the_call_goes_on(stub: Any) -> None:
    refused, answered = converse(stub, ask("state", "1"), ask("state", "2", "c"))
    assert (refused.status.code, refused.status.message) == (13, "Parameter sequenceId is required.")
    assert b"BadRequestException.()" in refused.status.details[0].value
    assert not answered.HasField("status")
    assert json.loads(answered.prediction)[:2] == ["c", "2"]


def test_a_sequence_can_be_begun_without_an_id(stub: Any, differs: Callable[[str], None]) -> None:
    differs("sequence-start")
    (answer,) = converse(stub, ask("state", "1", ts_request_sequence_start="true"))
    assert json.loads(answer.prediction)[0] == answer.sequence_id != ""


def test_a_failed_request_does_not_end_its_sequences_call(stub: Any, differs: Callable[[str], None]) -> None:
    differs("sequence-failure")
    unknown, failed, answered = converse(
        stub, ask("none", "1", "d"), ask("kinds", "raise", "d"), ask("kinds", "x", "d")
    )
    assert (unknown.status.code, unknown.status.message) == (13, "Model not found: none")
    assert (failed.status.code, failed.status.message) == (14, "Prediction failed")
    assert answered.prediction == b"ok"
