"""Failures as gRPC statuses, in two forms.

mlserve's own are the canonical codes that libraries and proxies act on, with the message alone. Where
``server.http_style`` is ``torchserve`` code and text are TorchServe 0.12's: its HTTP status translated, or a code fixed
per API, and the name of a Java exception on a second line, which clients match on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import orjson

from mlserve import errors
from mlserve.errors import ErrorKind, ServeError
from mlserve.protocols.errors import INTERNAL_ERROR, JavaFailure, describe_error
from mlserve.protocols.torchserve import HttpOptions, encode_error
from mlserve.rpc.codes import Code

MAX_DETAILS = 4096  # bytes; they travel in a trailer, and clients refuse more than 8 KiB of those


class MissingParameter(errors.InvalidInput):
    """A field that must be set is empty."""


class ModelApiOff(ServeError):
    """Registering and unregistering is switched off."""

    kind = ErrorKind.FORBIDDEN


class Failure(NamedTuple):
    """How a call ends. ``reason`` is a Java class name, or one word for programs; not every failure has one."""

    code: Code
    message: str
    reason: str = ""

    @property
    def details(self) -> str:
        """The status message that the client gets: short and encodable."""
        text = f"{self.message}\n{self.reason}" if "." in self.reason else self.message
        return text.encode("utf-8", "replace")[:MAX_DETAILS].decode("utf-8", "ignore")


Failures = Callable[[ServeError, str, str], Failure]
"""(error, model and version that the client named) -> how its call ends."""

_CANONICAL = {
    ErrorKind.INVALID_INPUT: Code.INVALID_ARGUMENT,
    ErrorKind.TOO_LARGE: Code.RESOURCE_EXHAUSTED,
    ErrorKind.NOT_FOUND: Code.NOT_FOUND,
    ErrorKind.UNSUPPORTED: Code.UNIMPLEMENTED,
    ErrorKind.FORBIDDEN: Code.PERMISSION_DENIED,
    ErrorKind.CONFLICT: Code.ALREADY_EXISTS,
    ErrorKind.NOT_READY: Code.UNAVAILABLE,
    ErrorKind.OVERLOADED: Code.RESOURCE_EXHAUSTED,
    ErrorKind.TIMEOUT: Code.DEADLINE_EXCEEDED,
    ErrorKind.CANCELLED: Code.CANCELLED,
    ErrorKind.WORKER_DIED: Code.INTERNAL,  # not UNAVAILABLE: clients repeat that, and the request may be what kills
    ErrorKind.HANDLER_FAILED: Code.INTERNAL,
    ErrorKind.OUT_OF_MEMORY: Code.RESOURCE_EXHAUSTED,
    ErrorKind.INTERNAL: Code.INTERNAL,
}
_BY_HTTP = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.ABORTED,
    413: Code.RESOURCE_EXHAUSTED,
    416: Code.OUT_OF_RANGE,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
_MODEL, _HTTP, _ARCHIVE = (f"org.pytorch.serve.{part}" for part in ("archive.model", "http", "archive"))
_INTERNAL_SERVER = f"{_HTTP}.InternalServerException"
_JAVA = {
    "ModelNotFoundException": f"{_MODEL}.ModelNotFoundException",
    "ModelVersionNotFoundException": f"{_MODEL}.ModelVersionNotFoundException",
    "InvalidModelException": f"{_MODEL}.InvalidModelException",
    "DownloadArchiveException": f"{_ARCHIVE}.DownloadArchiveException",
    "BadRequestException": f"{_HTTP}.BadRequestException",
}


def from_http(status: int) -> Code:
    """TorchServe's translation of an HTTP status that is no success."""
    code = _BY_HTTP.get(status)
    if code is not None:
        return code
    if 400 <= status < 500:
        return Code.FAILED_PRECONDITION
    return Code.INTERNAL if 500 <= status < 600 else Code.UNKNOWN


def unexpected() -> Failure:
    """A fault of the server's own, which its log tells about."""
    return Failure(Code.INTERNAL, INTERNAL_ERROR)


class Statuses:
    """The :data:`Failures` of each API, in the form that the settings ask for."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        java = options.torchserve_style
        self.java = java
        self.inference: Failures = self._java_inference if java else self._canonical
        self.metadata: Failures = self._java_metadata if java else self._canonical
        self.management: Failures = self._java_management if java else self._canonical
        self.customized: Failures = self._java_customized if java else self._canonical

    def _canonical(self, error: ServeError, name: str, version: str) -> Failure:
        code = _CANONICAL[error.kind] if error.status is None else from_http(error.status)
        if isinstance(error, errors.VersionInUse):
            code = Code.FAILED_PRECONDITION
        return Failure(code, self._words(error, name, version)[1], error.kind.name)

    def _words(self, error: ServeError, name: str, version: str) -> tuple[int, str]:
        """HTTP status and message of a failed request: one wording for all doors."""
        answer = encode_error(error, self._options, name, version)
        return answer.status, orjson.loads(answer.body)["message"] if answer.body else error.message

    def _java_inference(self, error: ServeError, name: str, version: str) -> Failure:
        if isinstance(error, errors.InvalidToken):
            return Failure(Code.PERMISSION_DENIED, error.message)
        if error.kind is ErrorKind.UNSUPPORTED:
            return Failure(Code.UNIMPLEMENTED, error.message)
        if isinstance(error, MissingParameter):
            return Failure(Code.INTERNAL, error.message, "BadRequestException.()")
        if isinstance(error, (errors.ModelNotFound, errors.VersionNotFound)):
            return Failure(Code.INTERNAL, error.message, _class_of(error))
        status, message = self._words(error, name, version)
        if isinstance(error, (errors.NoWorker, errors.QueueFull)):
            return Failure(Code.INTERNAL, message, "InternalServerException.()")
        return Failure(from_http(status), message, _INTERNAL_SERVER)

    def _java_metadata(self, error: ServeError, name: str, version: str) -> Failure:
        failure = self._java_inference(error, name, version)
        return failure._replace(code=Code.NOT_FOUND) if error.kind is ErrorKind.NOT_FOUND else failure

    def _java_management(self, error: ServeError, name: str, version: str) -> Failure:
        status, _, message = describe_error(error)
        if isinstance(error, errors.InvalidToken):
            return Failure(Code.PERMISSION_DENIED, message)
        if isinstance(error, ModelApiOff):
            return Failure(Code.PERMISSION_DENIED, message, f"{_MODEL}.ModelException")
        if isinstance(error, (errors.ModelExists, errors.VersionInUse)):
            return Failure(Code.UNKNOWN, "")  # exceptions that nobody catches there
        if error.kind is ErrorKind.NOT_FOUND:
            return Failure(Code.NOT_FOUND, message, _class_of(error))
        if error.kind is ErrorKind.INVALID_INPUT:
            return Failure(Code.INVALID_ARGUMENT, message, _class_of(error))
        reason = error.java_class if isinstance(error, JavaFailure) else _INTERNAL_SERVER
        return Failure(from_http(status), message, reason)

    def _java_customized(self, error: ServeError, name: str, version: str) -> Failure:
        """Of a description that asks the handler."""
        if isinstance(error, errors.NoWorker):
            return Failure(Code.INTERNAL, "InternalServerException.()", _INTERNAL_SERVER)
        failure = self._java_management(error, name, version)
        return failure._replace(code=Code.INTERNAL) if error.kind is ErrorKind.NOT_FOUND else failure


def _class_of(error: ServeError) -> str:
    """The Java class that stands for an error."""
    name = describe_error(error)[1]
    return _JAVA.get(name, f"{_HTTP}.{name}")
