"""The shared table from failures to status, type name and message."""

from __future__ import annotations

import inspect
import json

import pytest

from mlserve import errors
from mlserve.errors import ErrorKind, ServeError
from mlserve.protocols.errors import describe_error, error_body, type_for_status

TABLE = [
    (errors.ModelNotFound("m"), 404, "ModelNotFoundException"),
    (errors.VersionNotFound("m"), 404, "ModelVersionNotFoundException"),
    (errors.RouteNotFound("m"), 404, "ResourceNotFoundException"),
    (errors.MethodNotAllowed("m"), 405, "MethodNotAllowedException"),
    (errors.InvalidInput("m"), 400, "BadRequestException"),
    (errors.ArchiveError("m"), 400, "InvalidModelException"),
    (errors.DownloadError("m"), 400, "DownloadArchiveException"),
    (errors.VersionInUse("m"), 403, "InvalidModelVersionException"),
    (errors.ModelExists("m"), 409, "ConflictStatusException"),
    (errors.QueueFull("m"), 503, "ServiceUnavailableException"),
    (errors.NoWorker("m"), 503, "ServiceUnavailableException"),
    (errors.WorkerStartError("m"), 500, "InternalServerException"),
    (errors.WorkerStartError("m", kind=ErrorKind.OUT_OF_MEMORY), 507, "OutOfMemoryException"),
    (errors.ArchiveError("m", kind=ErrorKind.TOO_LARGE), 413, "RequestTooLargeException"),
    (ServeError("m", kind=ErrorKind.TIMEOUT), 504, "RequestTimeoutException"),
    (ServeError("m", kind=ErrorKind.CANCELLED), 499, "RequestCancelledException"),
    (ServeError("m", kind=ErrorKind.WORKER_DIED), 500, "InternalServerException"),
    (ServeError("m", kind=ErrorKind.HANDLER_FAILED, status=418), 418, "BadRequestException"),
    (ServeError("m", kind=ErrorKind.HANDLER_FAILED, status=404), 404, "ResourceNotFoundException"),
    (ServeError("m", kind=ErrorKind.HANDLER_FAILED, status=507), 507, "InternalServerException"),
    (ServeError("m"), 500, "InternalServerException"),
]


@pytest.mark.parametrize(("error", "status", "name"), TABLE)
def test_error_has_another_status_or_type(error: ServeError, status: int, name: str) -> None:
    assert describe_error(error)[:2] == (status, name)


def test_an_error_class_or_kind_is_missing_from_the_table() -> None:
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, ServeError):
            assert 400 <= describe_error(cls("m"))[0] < 600
    for kind in ErrorKind:
        assert 400 <= describe_error(ServeError("m", kind=kind))[0] < 600


def test_handler_failure_ignores_the_setting() -> None:
    failure = ServeError("Prediction failed", kind=ErrorKind.HANDLER_FAILED)
    assert describe_error(failure)[0] == 500
    assert describe_error(failure, handler_status=503)[0] == 503
    assert describe_error(ServeError("m"), handler_status=503)[0] == 500


def test_fixed_texts_are_lost() -> None:
    assert describe_error(errors.RouteNotFound("/x"))[2].startswith("Requested resource is not found")
    assert describe_error(errors.MethodNotAllowed(""))[2].startswith("Requested method is not allowed")
    assert describe_error(errors.MethodNotAllowed("switched off"))[2] == "switched off"


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("none", "failed"),
        ("summary", "failed: ValueError: bad"),
        ("traceback", "failed\nTraceback\n  line\nValueError: bad"),
    ],
)
def test_client_is_told_more_or_less_than_the_setting_says(level: str, message: str) -> None:
    assert (
        describe_error(ServeError("failed", detail="Traceback\n  line\nValueError: bad\n"), detail=level)[2] == message
    )


def test_summary_repeats_what_the_message_says() -> None:
    assert describe_error(ServeError("it said: boom", detail="x\nboom"), detail="summary")[2] == "it said: boom"


def test_body_is_not_pretty_json_with_a_newline() -> None:
    body = error_body(404, "T", 'a "b"\n')
    assert body.startswith(b'{\n  "code": 404,\n  "type": "T",\n')
    assert body.endswith(b"}\n")
    assert json.loads(body) == {"code": 404, "type": "T", "message": 'a "b"\n'}


@pytest.mark.parametrize(
    ("status", "name"),
    [(400, "BadRequestException"), (413, "RequestTooLargeException"), (431, "BadRequestException"),
     (408, "RequestTimeoutException"), (500, "InternalServerException"), (502, "InternalServerException")],
)  # fmt: skip
def test_status_without_a_class_has_no_type(status: int, name: str) -> None:
    assert type_for_status(status) == name
