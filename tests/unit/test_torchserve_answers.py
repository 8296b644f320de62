"""TorchServe's answers byte for byte, as a real 0.12 sent them: every head, every failure, on the fast lane's path."""

from __future__ import annotations

import dataclasses

import pytest
from support.core_fakes import FakeClock

from mlserve.core.job import Job
from mlserve.core.messages import InferenceRequest, InferenceResponse, Part
from mlserve.core.metrics import ModelStats
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.core.pending import ModelQueue
from mlserve.errors import ErrorKind, ModelNotFound, NoWorker, QueueFull, ServeError, VersionNotFound
from mlserve.protocols.torchserve import Answer, HttpOptions, encode, encode_error
from mlserve.rest.http1 import heads_for, https_only
from mlserve.settings import Settings
from mlserve.settings.access import CorsSettings

STYLE = HttpOptions(torchserve_style=True, error_detail="none", handler_error_status=503)
ID = "1d6a3a2e-5c0b-4f6e-a7c1-0123456789ab"
NO_CACHE = (
    b"Pragma: no-cache\r\n"
    b"Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
    b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)


def written(answer: Answer, options: HttpOptions = STYLE, keep_alive: bool = True) -> bytes:
    return b"".join(heads_for(options).answer(answer, ID, keep_alive))


def ended(result: InferenceResponse | ServeError, version: str = "") -> Job:
    queue = ModelQueue(ModelSpec(ModelKey("m", "1.0"), "/x", "h"), FakeClock(), ModelStats())
    job = Job()
    job.queue, job.request = queue, InferenceRequest(ID, [Part("body", b"")], version=version)
    job.finish(result)
    return job


def failure(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nx-request-id: %b\r\n%b" % (status, ID.encode(), NO_CACHE)
    return head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body


def error(code: int, kind: str, message: str) -> bytes:
    return f'{{\n  "code": {code},\n  "type": "{kind}",\n  "message": "{message}"\n}}\n'.encode()


def test_a_prediction_has_no_reason_phrase_no_content_type_and_no_date() -> None:
    assert written(encode(ended(InferenceResponse(b"ok")), STYLE)) == (
        b"HTTP/1.1 200 \r\nx-request-id: %b\r\n%bcontent-length: 2\r\nconnection: keep-alive\r\n\r\nok"
        % (ID.encode(), NO_CACHE)
    )


def test_what_a_handler_sets_comes_first_and_as_it_set_it() -> None:
    result = InferenceResponse(b"tea", "text/plain", 201, "made", [("x-Model", "seven")])
    assert written(encode(ended(result), STYLE)) == (
        b"HTTP/1.1 201 made\r\ncontent-type: text/plain\r\nx-Model: seven\r\nx-request-id: %b\r\n%b"
        b"content-length: 3\r\nconnection: keep-alive\r\n\r\ntea" % (ID.encode(), NO_CACHE)
    )


def test_a_body_that_is_too_large_gets_a_status_and_a_length_and_nothing_else() -> None:
    answer = encode_error(ServeError("too large", kind=ErrorKind.TOO_LARGE), STYLE)
    assert written(answer) == b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n"


NO_WORKER = (
    " has no worker to serve inference request. Please use scale workers API to add workers. If this is a sequence "
    "inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)
INTERNAL = "InternalServerException"
FAILURES = [
    (
        ServeError("x", kind=ErrorKind.HANDLER_FAILED, detail="Trace"),
        b"503 Service Unavailable",
        INTERNAL,
        "Prediction failed",
    ),
    (
        ServeError("number of batch response mismatched", kind=ErrorKind.HANDLER_FAILED),
        b"503 Service Unavailable",
        INTERNAL,
        "number of batch response mismatched",
    ),
    (ServeError("x", kind=ErrorKind.OUT_OF_MEMORY), b"507 Insufficient Storage", INTERNAL, "Out of resources"),
    (ServeError("x", kind=ErrorKind.WORKER_DIED), b"500 Internal Server Error", INTERNAL, "Worker died."),
    (
        ServeError("a teapot", kind=ErrorKind.HANDLER_FAILED, status=418, detail="Trace"),
        b"418 Client Error (418)",
        INTERNAL,
        "a teapot",
    ),
    (ServeError("odd", kind=ErrorKind.HANDLER_FAILED, status=599), b"599 Server Error (599)", INTERNAL, "odd"),
    (ServeError("gone", kind=ErrorKind.HANDLER_FAILED, status=404), b"404 Not Found", INTERNAL, "gone"),
    (ServeError("big", kind=ErrorKind.HANDLER_FAILED, status=413), b"507 Insufficient Storage", INTERNAL, "big"),
    (ModelNotFound("Model not found: x"), b"404 Not Found", "ModelNotFoundException", "Model not found: x"),
    (VersionNotFound("gone"), b"404 Not Found", "ModelVersionNotFoundException", "gone"),
]  # fmt: skip


@pytest.mark.parametrize(("result", "status", "kind", "message"), FAILURES)
def test_failures_are_told_in_torchserves_words(result: ServeError, status: bytes, kind: str, message: str) -> None:
    answer = encode(ended(result), STYLE)
    assert written(answer, keep_alive=False) == failure(status, error(answer.status, kind, message))


@pytest.mark.parametrize("cause", [NoWorker("x"), QueueFull("x", retry_after=1.0)])
@pytest.mark.parametrize(("version", "model"), [("", 'Model \\"m\\"'), ("1.0", 'Model \\"m\\" Version 1.0\\"')])
def test_no_worker_and_a_full_queue_are_the_same_to_a_client(cause: ServeError, version: str, model: str) -> None:
    expected = failure(b"503 Service Unavailable", error(503, "ServiceUnavailableException", model + NO_WORKER))
    assert written(encode_error(cause, STYLE, "m", version), keep_alive=False) == expected
    assert written(encode(ended(cause, version), STYLE), keep_alive=False) == expected


def test_more_than_the_fixed_words_comes_only_when_it_is_asked_for() -> None:
    cause = ServeError("Prediction failed", kind=ErrorKind.HANDLER_FAILED, detail="Trace\nValueError: upside down")
    summary = encode(ended(cause), dataclasses.replace(STYLE, error_detail="summary"))
    assert b'"Prediction failed: ValueError: upside down"' in bytes(summary.body)
    traceback = encode(ended(cause), dataclasses.replace(STYLE, error_detail="traceback"))
    assert b'"Prediction failed\\nTrace\\nValueError: upside down"' in bytes(traceback.body)


CORS = (
    ("access-control-allow-origin", "https://a.example"),
    ("access-control-allow-methods", "GET, POST"),
    ("access-control-allow-headers", "x-token"),
)


@pytest.mark.parametrize("style", [True, False])
def test_every_answer_says_what_browsers_may_do(style: bool) -> None:
    options = HttpOptions(torchserve_style=style, cors=CORS)
    for answer in (Answer(200, b"x"), Answer(404, b"x"), Answer(200, b"x", headers=[("x-model", "seven")])):
        head = written(answer, options)
        for name, value in CORS:
            assert head.count(f"{name}: {value}\r\n".encode()) == 1


def test_a_handler_that_says_it_itself_is_not_contradicted() -> None:
    head = written(Answer(200, b"x", headers=[("Access-Control-Allow-Origin", "*")]), HttpOptions(cors=CORS))
    assert head.lower().count(b"access-control-allow-origin") == 1
    assert b"access-control-allow-methods: GET, POST" in head


def test_browsers_are_told_nothing_without_an_origin() -> None:
    settings = Settings(cors=CorsSettings(allowed_origin="", allowed_methods="GET"))
    assert HttpOptions.of(settings).cors == ()
    settings = Settings(cors=CorsSettings(allowed_origin="*", allowed_methods="GET"))
    assert [name for name, _ in HttpOptions.of(settings).cors] == [
        "access-control-allow-origin",
        "access-control-allow-methods",
    ]


def test_plain_http_on_a_tls_port_is_told_so() -> None:
    told = https_only(STYLE, ID)
    assert told.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert told.endswith(b'{\n  "status": "This TorchServe instance only accepts HTTPS requests"\n}\n')
    assert https_only(HttpOptions(), ID).startswith(b"HTTP/1.1 400 Bad Request\r\n")
