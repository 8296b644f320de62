"""Every failure that a caller can meet, as one small tree.

The core raises ``ServeError`` with an :class:`ErrorKind`; each protocol codec owns its own table from kind to
status code, so no HTTP number appears below the protocols. ``message`` is written for the person who reads it:
it names the cause and, where there is one, the setting or command that changes it.
"""

from __future__ import annotations

from enum import Enum


class ErrorKind(str, Enum):
    """What went wrong, in the terms a client can act on."""

    INVALID_INPUT = "invalid_input"
    TOO_LARGE = "too_large"
    NOT_FOUND = "not_found"
    UNSUPPORTED = "unsupported"
    FORBIDDEN = "forbidden"
    CONFLICT = "conflict"
    NOT_READY = "not_ready"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    WORKER_DIED = "worker_died"
    HANDLER_FAILED = "handler_failed"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL = "internal"


class ServeError(Exception):
    """A failure with a kind and a message for the reader.

    ``status`` is set only where a handler chose a status of its own (``PredictionError(418, ...)``).
    ``retry_after`` is in seconds, for kinds that pass by themselves.
    ``detail`` is for operators (a traceback): it goes to logs and ``describe``, and to clients only on request.
    """

    kind = ErrorKind.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        kind: ErrorKind | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        if kind is not None:
            self.kind = kind
        self.status = status
        self.retry_after = retry_after
        self.detail = detail


class InvalidInput(ServeError):
    """The request cannot be understood; sending it again will fail again."""

    kind = ErrorKind.INVALID_INPUT


class ArchiveError(InvalidInput):
    """An archive or model directory that cannot be packed, read or trusted."""


class DownloadError(InvalidInput):
    """An archive could not be fetched from its URL."""


class InvalidWorkflow(InvalidInput):
    """A workflow archive or specification that cannot be run."""


class WorkflowNotFound(ServeError):
    """No workflow of that name, in the server or in the workflow store."""

    kind = ErrorKind.NOT_FOUND


class InvalidDag(InvalidWorkflow):
    """The nodes of a workflow have no order in which they could run."""


class WorkflowFailed(ServeError):
    """A node of a workflow could not be started; ``detail`` holds why its workers were not, a line for each node."""

    kind = ErrorKind.INTERNAL


class NodeFailed(ServeError):
    """A node of a workflow has failed in all its attempts."""

    kind = ErrorKind.INTERNAL


class RouteNotFound(ServeError):
    """No such URL."""

    kind = ErrorKind.NOT_FOUND


class ModelNotFound(ServeError):
    """No model of that name, in the server or in the model store."""

    kind = ErrorKind.NOT_FOUND


class VersionNotFound(ServeError):
    """The model is there, that version of it is not."""

    kind = ErrorKind.NOT_FOUND


class MethodNotAllowed(ServeError):
    """The URL exists, the method does not."""

    kind = ErrorKind.UNSUPPORTED


class VersionInUse(ServeError):
    """The default version cannot go while others would be left without one."""

    kind = ErrorKind.FORBIDDEN


class ModelExists(ServeError):
    """That name and version is registered already."""

    kind = ErrorKind.CONFLICT


class NoWorker(ServeError):
    """The model has no worker that can take the request now."""

    kind = ErrorKind.NOT_READY


class QueueFull(ServeError):
    """The model's queue holds ``job_queue_size`` requests already."""

    kind = ErrorKind.OVERLOADED


class InvalidToken(ServeError):
    """The caller sent no token, a wrong one, or one that has expired."""

    kind = ErrorKind.FORBIDDEN


class WorkerDied(ServeError):
    """The worker ended with the request. ``killed``: by SIGKILL, mostly the kernel's, or out of memory."""

    kind = ErrorKind.WORKER_DIED
    killed = False


class WorkerStartError(ServeError):
    """Workers of a model could not be brought to READY; ``detail`` holds the last one's traceback or log.

    ``killed`` is as of :class:`WorkerDied`.
    """

    kind = ErrorKind.INTERNAL
    killed = False

    @property
    def failed(self) -> str:
        """What failed, without why: the message up to the worker's own words."""
        return self.message.partition(". Worker ")[0]


class SettingError(Exception):
    """A setting that is unknown, ill-typed or out of range: names the source, the line and the nearest key."""
