"""Failures as gRPC statuses: every kind has a code in both forms, and what is sent can be sent."""

from __future__ import annotations

import pytest

from mlserve import errors
from mlserve.errors import ErrorKind, ServeError
from mlserve.protocols.errors import JavaFailure
from mlserve.protocols.torchserve import HttpOptions
from mlserve.rpc.codes import Code
from mlserve.rpc.statuses import Failure, Statuses, from_http

OWN = Statuses(HttpOptions())
JAVA = Statuses(HttpOptions(torchserve_style=True, handler_error_status=503, error_detail="none"))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.INVALID_ARGUMENT),
        (401, Code.UNAUTHENTICATED),
        (403, Code.PERMISSION_DENIED),
        (404, Code.NOT_FOUND),
        (405, Code.FAILED_PRECONDITION),
        (409, Code.ABORTED),
        (413, Code.RESOURCE_EXHAUSTED),
        (416, Code.OUT_OF_RANGE),
        (418, Code.FAILED_PRECONDITION),
        (429, Code.RESOURCE_EXHAUSTED),
        (499, Code.CANCELLED),
        (500, Code.INTERNAL),
        (501, Code.UNIMPLEMENTED),
        (503, Code.UNAVAILABLE),
        (504, Code.DEADLINE_EXCEEDED),
        (507, Code.INTERNAL),
        (599, Code.INTERNAL),
        (600, Code.UNKNOWN),
    ],
)
def test_http_statuses_translate_as_torchserves_do(status: int, code: Code) -> None:
    assert from_http(status) is code


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_kind_of_failure_has_a_code_in_both_forms(kind: ErrorKind) -> None:
    for statuses in (OWN, JAVA):
        for failures in (statuses.inference, statuses.metadata, statuses.management, statuses.customized):
            failure = failures(ServeError("words", kind=kind), "m", "1.0")
            assert failure.code is not Code.OK
            assert isinstance(failure.details, str)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ModelNotFound("x"), Code.NOT_FOUND),
        (errors.QueueFull("x"), Code.RESOURCE_EXHAUSTED),
        (errors.NoWorker("x"), Code.UNAVAILABLE),
        (errors.ModelExists("x"), Code.ALREADY_EXISTS),
        (errors.VersionInUse("x"), Code.FAILED_PRECONDITION),
        (errors.InvalidToken("x"), Code.PERMISSION_DENIED),
        (ServeError("x", kind=ErrorKind.TIMEOUT), Code.DEADLINE_EXCEEDED),
        (ServeError("x", kind=ErrorKind.WORKER_DIED), Code.INTERNAL),
        (ServeError("x", kind=ErrorKind.HANDLER_FAILED, status=429), Code.RESOURCE_EXHAUSTED),
    ],
)
def test_own_codes_are_those_that_clients_act_on(error: ServeError, code: Code) -> None:
    assert OWN.inference(error, "m", "").code is code


ARCHIVE, HTTP = "org.pytorch.serve.archive.model.", "org.pytorch.serve.http."


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (errors.ArchiveError("bad"), Failure(Code.INVALID_ARGUMENT, "bad", f"{ARCHIVE}InvalidModelException")),
        (
            errors.DownloadError("bad"),
            Failure(Code.INVALID_ARGUMENT, "bad", "org.pytorch.serve.archive.DownloadArchiveException"),
        ),
        (errors.ModelExists("bad"), Failure(Code.UNKNOWN, "")),
        (errors.VersionInUse("bad"), Failure(Code.UNKNOWN, "")),
        (errors.InvalidToken("bad"), Failure(Code.PERMISSION_DENIED, "bad")),
        (errors.WorkerStartError("bad"), Failure(Code.INTERNAL, "bad", f"{HTTP}InternalServerException")),
        (JavaFailure("java.lang.X", "bad"), Failure(Code.INTERNAL, "bad", "java.lang.X")),
    ],
)
def test_management_failures_in_torchserves_form(error: ServeError, failure: Failure) -> None:
    assert JAVA.management(error, "", "") == failure


def test_details_are_cut_and_can_be_encoded() -> None:
    """A trailer that is too long makes clients fail with another code than the one that was sent."""
    details = Failure(Code.INTERNAL, "é" * 10_000 + "\ud800").details
    assert len(details.encode()) <= 4096
    assert Failure(Code.INTERNAL, "a\ud800b").details == "a?b"


def test_only_class_names_follow_the_words() -> None:
    assert Failure(Code.INTERNAL, "words", "org.x.Y").details == "words\norg.x.Y"
    assert Failure(Code.INTERNAL, "words", "NOT_FOUND").details == "words"
