"""One table from failures to what an HTTP client of the TorchServe APIs sees: a status, a type name, a message.

Type names are the exception classes that TorchServe puts into its error bodies, because clients match on them; for
the kinds that TorchServe does not know the names follow the same pattern. Both doors of the inference API, and the
management and metrics APIs, answer errors through this module, so an error looks the same wherever it is met.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from mlserve import errors
from mlserve.errors import ErrorKind, ServeError

ROUTE_NOT_FOUND = "Requested resource is not found, please refer to API document."
METHOD_NOT_ALLOWED = "Requested method is not allowed, please refer to API document."
INTERNAL_ERROR = "The server failed to handle the request; the cause is in its log."

_BY_KIND: dict[ErrorKind, tuple[int, str]] = {
    ErrorKind.INVALID_INPUT: (400, "BadRequestException"),
    ErrorKind.TOO_LARGE: (413, "RequestTooLargeException"),
    ErrorKind.NOT_FOUND: (404, "ResourceNotFoundException"),
    ErrorKind.UNSUPPORTED: (405, "MethodNotAllowedException"),
    ErrorKind.FORBIDDEN: (403, "ForbiddenException"),
    ErrorKind.CONFLICT: (409, "ConflictStatusException"),
    ErrorKind.NOT_READY: (503, "ServiceUnavailableException"),
    ErrorKind.OVERLOADED: (503, "ServiceUnavailableException"),
    ErrorKind.TIMEOUT: (504, "RequestTimeoutException"),
    ErrorKind.CANCELLED: (499, "RequestCancelledException"),
    ErrorKind.WORKER_DIED: (500, "InternalServerException"),
    ErrorKind.HANDLER_FAILED: (500, "InternalServerException"),
    ErrorKind.OUT_OF_MEMORY: (507, "OutOfMemoryException"),
    ErrorKind.INTERNAL: (500, "InternalServerException"),
}


class JavaFailure(ServeError):
    """A failure that TorchServe's clients know by the name of an exception of Java's, ``java_class``: a status 500."""

    kind = ErrorKind.INTERNAL

    def __init__(self, java_class: str, message: str) -> None:
        super().__init__(message)
        self.java_class = java_class


# Classes that are told apart within a kind. A class not listed here is answered by its kind.
_BY_CLASS: dict[type[ServeError], tuple[int, str]] = {
    errors.ModelNotFound: (404, "ModelNotFoundException"),
    errors.VersionNotFound: (404, "ModelVersionNotFoundException"),
    errors.ArchiveError: (400, "InvalidModelException"),
    errors.WorkflowNotFound: (404, "WorkflowNotFoundException"),
    errors.WorkflowFailed: (500, "WorkflowException"),
    errors.InvalidWorkflow: (400, "InvalidWorkflowException"),
    errors.InvalidDag: (400, "InvalidDAGException"),
    errors.DownloadError: (400, "DownloadArchiveException"),
    errors.InvalidToken: (400, "InvalidKeyException"),  # not 401: clients of TorchServe look for it
    errors.VersionInUse: (403, "InvalidModelVersionException"),
}

# Where no handler and no codec gave a type: the failure was found by the HTTP server itself.
_BY_STATUS: dict[int, str] = {408: "RequestTimeoutException", **dict(reversed(list(_BY_KIND.values())))}


def describe_error(error: ServeError, *, handler_status: int = 500, detail: str = "none") -> tuple[int, str, str]:
    """Status, type name and message of an error.

    ``error.status`` wins over every table. ``handler_status`` is the status of a handler's failure (setting
    ``server.handler_error_status``; TorchServe's is 503). ``detail`` is the setting ``server.error_detail``: with
    ``summary`` the last line of ``error.detail`` follows the message unless it is in it, with ``traceback`` all of it.
    """
    cls = type(error)
    row = _BY_CLASS.get(cls)
    if row is None or error.kind is not cls.kind:  # an instance may be given another kind than its class has
        row = _BY_KIND[error.kind]
    status, name = row
    if isinstance(error, JavaFailure):
        name = error.java_class.rpartition(".")[2]
    if error.status is not None:
        status = error.status
        if error.kind is ErrorKind.HANDLER_FAILED and status < 500:  # a refusal: it is the request that is at fault
            name = type_for_status(status)
    elif error.kind is ErrorKind.HANDLER_FAILED:
        status = handler_status
    message = error.message
    if cls is errors.RouteNotFound:
        message = ROUTE_NOT_FOUND
    elif not message and error.kind is ErrorKind.UNSUPPORTED:
        message = METHOD_NOT_ALLOWED
    if error.detail and detail != "none":
        message = _with_detail(message, error.detail, detail)
    return status, name, message


def type_for_status(status: int) -> str:
    """The type name for a failure of which only the HTTP status is known."""
    return _BY_STATUS.get(status, "BadRequestException" if status < 500 else "InternalServerException")


def error_body(status: int, type_name: str, message: str) -> bytes:
    """The JSON error body: ``code``, ``type`` and ``message``, pretty printed with a newline at the end."""
    return json_body({"code": status, "type": type_name, "message": message})


def json_body(value: Any) -> bytes:
    """JSON as TorchServe prints it: indented by two spaces, with a newline at the end."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # A lone surrogate, from undecodable bytes in a path or a log line, is no valid UTF-8; escaped it is valid JSON.
        return (json.dumps(value, indent=2) + "\n").encode("ascii")


def _with_detail(message: str, detail: str, level: str) -> str:
    detail = detail.strip()
    if level == "traceback":
        return f"{message}\n{detail}"
    last = detail.rsplit("\n", 1)[-1].strip()
    return message if last in message else f"{message}: {last}"
