"""The gRPC inference API: what a handler receives, what a client gets, and how each failure ends, in both forms."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from support.grpc_client import JAVA, TIMEOUT, Stubs, ask, refusal, serving

from mlserve.archive import pack
from mlserve.rpc.generated.inference_pb2 import PredictionsRequest

HANDLERS = Path(__file__).parent / "handlers"
MODELS = (f"modes={HANDLERS / 'modes.py'}",)
WORKER = {"DEFAULTS_WORKERS": "2", "SERVER_MAX_REQUEST_SIZE": "100000", "SERVER_MAX_RESPONSE_SIZE": "100000"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    with serving(tmp_path_factory.mktemp("own"), *MODELS, settings=WORKER) as stubs:
        yield stubs


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    with serving(tmp_path_factory.mktemp("java"), *MODELS, settings={**WORKER, **JAVA}) as stubs:
        yield stubs


def test_ping_says_healthy_in_the_json_that_probes_parse(own: Stubs) -> None:
    assert own.inference.Ping(Empty(), timeout=TIMEOUT).health == '{\n  "status": "Healthy"\n}'


def test_every_value_reaches_the_handler_as_bytearray_and_nothing_else_does(own: Stubs) -> None:
    request = PredictionsRequest(model_name="modes", input={"data": b"types", "body": b"{}", "x": b""})
    metadata = (("content-type-of-x", "application/json"),)
    answer = own.inference.Predictions(request, metadata=metadata, timeout=TIMEOUT)
    assert json.loads(answer.prediction) == dict.fromkeys(("body", "data", "x"), "bytearray")
    assert not answer.HasField("status")
    assert not answer.HasField("sequence_id")
    assert json.loads(own.predict("headers")) == {"data": {"content-type": ""}}


def test_a_status_that_the_handler_sets_does_not_fail_the_call(own: Stubs) -> None:
    assert own.predict("status 418") == b"sent all the same"


FAILURES = [
    # what is asked, mlserve's code and details, TorchServe's
    ("raise", ("INTERNAL", "Prediction failed: ValueError: no such thing"), ("UNAVAILABLE", "Prediction failed")),
    ("memory", ("RESOURCE_EXHAUSTED", "MemoryError: too much"), ("INTERNAL", "Out of resources")),
    ("code 400", ("INVALID_ARGUMENT", "chosen words"), ("INVALID_ARGUMENT", "chosen words")),
    ("code 418", ("FAILED_PRECONDITION", "chosen words"), ("FAILED_PRECONDITION", "chosen words")),
    ("code 599", ("INTERNAL", "chosen words"), ("INTERNAL", "chosen words")),
]


@pytest.mark.parametrize(("text", "ours", "theirs"), FAILURES)
def test_a_failed_prediction_has_its_code_and_words(own: Stubs, java: Stubs, text: str, ours, theirs) -> None:
    assert refusal(lambda: own.predict(text)) == ours
    code, message = theirs
    java_class = "org.pytorch.serve.http.InternalServerException"
    assert refusal(lambda: java.predict(text)) == (code, f"{message}\n{java_class}")


UNKNOWN = [
    ({"model_name": "nope"}, "NOT_FOUND", "Model not found: nope", "archive.model.ModelNotFoundException"),
    (
        {"model_name": "modes", "model_version": "9"},
        "NOT_FOUND",
        "Model version: 9 does not exist for model: modes",
        "archive.model.ModelVersionNotFoundException",
    ),
    ({}, "INVALID_ARGUMENT", "Parameter model_name is required.", ""),
]


@pytest.mark.parametrize(("fields", "code", "text", "java_class"), UNKNOWN)
def test_a_model_that_is_not_there_is_refused(own: Stubs, java: Stubs, fields, code, text, java_class) -> None:
    def call(stubs: Stubs):
        return refusal(lambda: stubs.inference.Predictions(PredictionsRequest(**fields), timeout=TIMEOUT))

    assert call(own) == (code, text)
    reason = f"org.pytorch.serve.{java_class}" if java_class else "BadRequestException.()"
    assert call(java) == ("INTERNAL", f"{text}\n{reason}")


def test_a_stream_has_a_message_per_piece(own: Stubs) -> None:
    streamed = own.inference.StreamPredictions(ask("pieces 3"), timeout=TIMEOUT)
    assert b"".join(one.prediction for one in streamed) == b"0 1 2 "
    whole = [one.prediction for one in own.inference.StreamPredictions(ask("whole"), timeout=TIMEOUT)]
    assert whole == [b"whole"]


def test_a_streaming_handler_does_not_break_a_call_for_one_answer(own: Stubs) -> None:
    assert own.predict("pieces 4") == b"0 1 2 3 "


def test_answers_of_a_sequence_keep_the_order_of_its_requests(own: Stubs) -> None:
    """There are two workers, and the second answer is ready first."""
    texts = {"a": ["sleep 0.3", "second", "third"], "b": ["other", "last"]}
    requests = [ask(text, sequence_id=name) for name, asked in texts.items() for text in asked]
    answers = own.sequence(*requests)
    assert [one.prediction for one in answers if one.sequence_id == "a"] == [b"0.3", b"second", b"third"]
    assert [one.prediction for one in answers if one.sequence_id == "b"] == [b"other", b"last"]


def test_a_failed_request_of_a_sequence_does_not_end_the_call(own: Stubs, java: Stubs) -> None:
    requests = [
        ask("raise", sequence_id="a"),
        ask("x"),
        ask("x", model="no", sequence_id="a"),
        ask("y", sequence_id="a"),
    ]
    for stubs, codes in ((own, [13, 3, 5, 0]), (java, [14, 13, 13, 0])):
        answers = {(one.sequence_id, one.status.message): one for one in stubs.sequence(*requests)}
        assert sorted(one.status.code for one in answers.values()) == sorted(codes)
        assert answers["", "Parameter sequenceId is required."].status.details
        assert answers["a", ""].prediction == b"y"


def test_a_sequence_can_be_begun_without_an_id(own: Stubs) -> None:
    start = PredictionsRequest(model_name="modes", input={"data": b"headers", "ts_request_sequence_start": b"True"})
    (answer,) = own.sequence(start)
    seen = json.loads(answer.prediction)
    assert seen["ts_request_sequence_id"] == answer.sequence_id
    assert answer.sequence_id.startswith("ts-seq-")


def test_an_open_sequence_is_answered_before_its_client_says_more(own: Stubs) -> None:
    """Else a client that waits for the answer to its first request waits forever."""
    go = threading.Event()

    def requests() -> Iterator[PredictionsRequest]:
        yield ask("add 1", sequence_id="open")
        assert go.wait(TIMEOUT)
        yield ask("add 2", sequence_id="open")

    call = own.inference.StreamPredictions2(requests(), timeout=TIMEOUT)
    first = next(call)
    go.set()
    assert first.sequence_id == "open"
    assert len(list(call)) == 1


def test_a_deadline_ends_the_request_in_the_server_too(own: Stubs) -> None:
    before = own.server.metric("mlserve_request_seconds_count", model="modes")
    started = time.monotonic()
    code, _ = refusal(lambda: own.inference.Predictions(ask("sleep 5"), timeout=0.2))
    assert code == "DEADLINE_EXCEEDED"
    assert time.monotonic() - started < 4
    own.server.wait_for(lambda: own.server.metric("mlserve_request_seconds_count", model="modes") > before, 4)


def test_a_cancelled_call_leaves_nothing_behind_it_waiting(own: Stubs) -> None:
    call = own.inference.Predictions.future(ask("sleep 3"), timeout=TIMEOUT)
    time.sleep(0.2)
    call.cancel()
    own.server.wait_for(lambda: " 1 0 " in access_lines(own)[-1] if access_lines(own) else False, 2)


def access_lines(stubs: Stubs) -> list[str]:
    return [line for line in stubs.server.log_text().splitlines() if '"gRPC ' in line]


def test_the_access_log_has_a_line_per_call(own: Stubs) -> None:
    own.predict("x")
    refusal(lambda: own.predict("x", model="nope"))
    path = "org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
    own.server.wait_for(lambda: [line for line in access_lines(own) if path in line and 'HTTP/2.0" 5 0 ' in line])
    assert [
        line
        for line in access_lines(own)
        if f'"gRPC {path} ' in line and 'HTTP/2.0" 0 ' in line and "127.0.0.1:" in line
    ]


def test_messages_beyond_the_limits_are_refused(own: Stubs) -> None:
    assert refusal(lambda: own.predict("x" * 100001))[0] == "RESOURCE_EXHAUSTED"
    assert len(own.predict("size 100000")) == 100000
    assert refusal(lambda: own.predict("size 100001"))[0] != "OK"
    assert own.predict("still there") == b"still there"


def test_a_worker_that_dies_is_told_of_and_replaced(java: Stubs) -> None:
    code, details = refusal(lambda: java.predict("die"))
    assert (code, details.splitlines()[0]) == ("INTERNAL", "Worker died.")
    assert java.predict("again") == b"again"


def test_many_calls_at_once_are_all_answered_right(own: Stubs) -> None:
    calls = [own.inference.Predictions.future(ask(str(number)), timeout=TIMEOUT) for number in range(300)]
    assert [int(call.result().prediction) for call in calls] == list(range(300))


def test_an_unknown_method_is_unimplemented(own: Stubs) -> None:
    call = own.channel.unary_unary("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Nope")
    assert refusal(lambda: call(b"", timeout=TIMEOUT))[0] == grpc.StatusCode.UNIMPLEMENTED.name


def test_a_stateful_model_keeps_each_sequence_in_one_worker_and_in_order(tmp_path: Path) -> None:
    config = tmp_path / "model-config.yaml"
    config.write_text(
        "minWorkers: 2\nmaxWorkers: 2\nbatchSize: 4\nsequenceBatching: true\nmaxNumSequence: 4\n"
        "sequenceMaxIdleMSec: 60000\nmaxSequenceJobQueueSize: 10\n"
    )
    handler = HANDLERS / "modes.py"
    pack(model_name="sums", version="1.0", handler=str(handler), config_file=str(config), export_path=tmp_path)
    with serving(tmp_path / "server", "sums.mar", store=tmp_path) as stubs:
        answers: dict[str, list[bytes]] = {}

        def add(name: str) -> None:
            requests = [ask(f"add {number}", model="sums", sequence_id=name) for number in (1, 2, 3)]
            answers[name] = [one.prediction for one in stubs.sequence(*requests)]

        threads = [threading.Thread(target=add, args=(f"seq_{number}",)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert answers == {f"seq_{number}": [b"1", b"3", b"6"] for number in range(3)}
