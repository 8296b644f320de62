"""The public API for handler authors: what a handler is, what it is given, and how it refuses one item.

A handler file holds one of

* a function ``handle(data, context)``;
* a class with ``initialize(context)`` and ``handle(data, context)``;
* a subclass of ``mlserve.handlers.base.BaseHandler`` that overrides ``preprocess``, ``inference`` or ``postprocess``.

``data`` is a list with one dict per request of the batch; the answer is a list with one element per request, in order.
An element may be ``str``, ``bytes``, anything JSON can hold, a :class:`Response`, a :class:`PredictionError` (that item
fails, the others do not), or a generator (that item is streamed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol


class PredictionError(Exception):
    """Refuse one item with a status and a message of the handler's choice.

    Raised while handling a single item, or returned as that item's element of the result list.
    ``status`` is an HTTP status from 400 to 599.
    """

    def __init__(self, status: int = 500, message: str = "Prediction failed") -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"PredictionError status must be 400 to 599, got {status}")
        super().__init__(message)
        self.status = status
        self.message = message


class Response:
    """One item's answer with its own content type, status or headers."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self, body: Any, content_type: str = "", status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.body = body
        self.content_type = content_type
        self.status = status
        self.headers = dict(headers or {})


class Handler(Protocol):
    """The class form of a handler."""

    def initialize(self, context: Context) -> None:
        """Load the model; called once per worker, before any request."""

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[Any]:
        """Answer a batch: one element per row of ``data``."""


class MetricsSink(Protocol):
    """``context.metrics``: numbers a handler reports. ``idx`` is the request's index in the batch.

    ``dimensions`` are objects with ``name`` and ``value``, or (name, value) pairs.
    """

    def add_counter(self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Any] = ()) -> None:
        """Add to a counter."""

    def add_time(
        self, name: str, value: float, idx: int | None = None, unit: str = "ms", dimensions: Sequence[Any] = ()
    ) -> None:
        """Report a duration."""

    def add_size(
        self, name: str, value: float, idx: int | None = None, unit: str = "MB", dimensions: Sequence[Any] = ()
    ) -> None:
        """Report a size."""

    def add_percent(self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Any] = ()) -> None:
        """Report a share, in percent."""

    def add_error(self, name: str, value: str, dimensions: Sequence[Any] = ()) -> None:
        """Report an error text."""

    def add_metric(
        self, name: str, value: float, unit: str = "", idx: int | None = None, dimensions: Sequence[Any] = ()
    ) -> None:
        """Report any other number."""


class RequestInfo:
    """What one request of a batch brought besides its parts. Headers are decoded only when somebody asks."""

    __slots__ = ("_extra", "_headers", "_raw", "request_id")

    def __init__(
        self, request_id: str, raw: Sequence[tuple[bytes, bytes]] = (), extra: Mapping[str, Any] | None = None
    ) -> None:
        self.request_id = request_id
        self._raw = raw
        self._extra = extra or {}
        self._headers: dict[str, Any] | None = None

    @property
    def headers(self) -> dict[str, Any]:
        """Client headers in the client's spelling, then what the server adds: ``url_path``, ``explain``, part types."""
        if self._headers is None:
            self._headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._raw}
            self._headers.update(self._extra)
        return self._headers


class _Reply:
    """What a handler set for one request's answer."""

    __slots__ = ("content_type", "headers", "reason", "status")

    def __init__(self) -> None:
        self.status = 200
        self.reason = ""
        self.content_type = ""
        self.headers: dict[str, str] = {}

    def set_header(self, key: str, value: str) -> None:
        """Set a header; the content type has a place of its own, so that it is never sent twice."""
        if key.lower() == "content-type":
            self.content_type = value
        else:
            self.headers[key] = value


class RequestProcessor(RequestInfo):
    """One request of a batch together with what was set for its answer; what ``context.request_processor`` holds.

    TorchServe's class of that name: same constructor, same methods. Handlers' own tests make these.
    """

    __slots__ = ("reply",)

    def __init__(self, request_header: dict[str, Any], *, request_id: str = "", reply: _Reply | None = None) -> None:
        super().__init__(request_id)
        self._headers = request_header
        self.reply = reply or _Reply()

    def get_request_property(self, key: str) -> Any:
        """A header by its exact spelling, or None."""
        return self.headers.get(key)

    def get_request_properties(self) -> dict[str, Any]:
        """All headers."""
        return self.headers

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the status of the answer."""
        self.reply.status, self.reply.reason = code, reason_phrase or ""

    def get_response_status_code(self) -> int:
        """The status that was set, else 200."""
        return self.reply.status

    def get_response_status_phrase(self) -> str:
        """The reason phrase that was set, or ""."""
        return self.reply.reason

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the answer."""
        self.reply.set_header(key, value)

    def get_response_headers(self) -> dict[str, str]:
        """The headers that were set."""
        return self.reply.headers

    def get_response_header(self, key: str) -> str | None:
        """A header that was set, or None."""
        return self.reply.headers.get(key)


class PhaseTimer:
    """Seconds of the current batch by phase; filled by handlers that have phases, read by the server.

    A handler that adds nothing has all its time counted as ``inference``.
    """

    __slots__ = ("inference", "postprocess", "preprocess")

    def __init__(self) -> None:
        self.preprocess = self.inference = self.postprocess = 0.0

    def add(self, name: str, seconds: float) -> None:
        """Add to the phase ``name``: "preprocess", "inference" or "postprocess"; others raise AttributeError."""
        setattr(self, name, getattr(self, name) + seconds)


class Context:
    """What a handler knows about its model, its place and the requests of the current batch.

    Compatible with TorchServe's ``ts.context.Context``: same attributes, same method names and argument order.
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Mapping[str, Any] | None = None,
        batch_size: int = 1,
        gpu_id: int | None = None,
        model_yaml_config: Mapping[str, Any] | None = None,
        metrics: MetricsSink | None = None,
        *,
        server_name: str = "MMS",
        server_version: str = "0.12.0",
        limit_max_image_pixels: bool = True,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": gpu_id,
            "batch_size": batch_size,
            "server_name": server_name,
            "server_version": server_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.model_yaml_config: Mapping[str, Any] = model_yaml_config or {}
        self.metrics: Any = metrics  # a MetricsSink; in a handler's test whatever stands in for one
        self.stopping_criteria: Any = None  # request index -> callable(output): True = ended, False = more to come
        self.cl_socket: Any = None  # TorchServe's connection to its frontend; here pieces go through send_piece()
        self.header_key_sequence_id = "ts_request_sequence_id"
        self.header_key_sequence_start = "ts_request_sequence_start"
        self.header_key_sequence_end = "ts_request_sequence_end"
        self.handler_threads = 1  # batches that the worker computes at once, each by a copy of the handler
        self.own_files = False  # whether the model's files are the server's own copy, so that nobody writes to them
        self.report_times = False  # whether BaseHandler and the worker add HandlerTime and PredictionTime
        self.phases = PhaseTimer()
        self.begin([RequestInfo("")])

    def begin(
        self,
        requests: Sequence[RequestInfo],
        cancelled: Callable[[int], bool] | None = None,
        send: Callable[[int, Any], None] | None = None,
    ) -> None:
        """Point the context at a new batch; called by the server.

        ``cancelled`` answers :meth:`is_cancelled`, ``send`` carries out :meth:`send_piece`.
        """
        self._requests = requests
        self._processors: list[RequestProcessor] | None = None
        self._ids: Mapping[int, str] | None = None
        self._replies: dict[int, _Reply] = {}
        # Where an envelope has opened the requests: the index of the request that each item is of.
        self.requests_of_items: list[int] | None = None
        self._cancelled = cancelled
        self._send = send
        phases = self.phases
        phases.preprocess = phases.inference = phases.postprocess = 0.0

    def is_cancelled(self, idx: int = 0) -> bool:
        """Whether nobody waits for request ``idx`` any more; a long computation may look now and then, and stop."""
        return self._cancelled is not None and self._cancelled(idx)

    def send_piece(self, idx: int, value: Any) -> None:
        """Send a piece of answer ``idx`` now; what ``handle`` returns for it then becomes the last piece.

        Raises RuntimeError outside of ``handle``.
        """
        if self._send is None:
            raise RuntimeError("send_piece() can only be called while handle() runs for a batch")
        self._send(idx, value)

    @property
    def request_ids(self) -> Mapping[int, str]:
        """Index in the batch -> request id. Tests of handlers may set it."""
        if self._ids is not None:
            return self._ids
        return {index: request.request_id for index, request in enumerate(self._requests)}

    @request_ids.setter
    def request_ids(self, ids: Mapping[int, str] | None) -> None:
        self._ids = ids

    @property
    def request_processor(self) -> list[RequestProcessor]:
        """The requests of the batch, each with what was set for its answer. Tests of handlers may set it."""
        if self._processors is None:
            self._processors = [
                request
                if isinstance(request, RequestProcessor)
                else RequestProcessor(request.headers, request_id=request.request_id, reply=self._reply(index))
                for index, request in enumerate(self._requests)
            ]
        return self._processors

    @request_processor.setter
    def request_processor(self, processors: Sequence[RequestProcessor] | None) -> None:
        self._processors = list(processors or ())
        self._requests = self._processors
        self._replies = {index: processor.reply for index, processor in enumerate(self._processors)}

    def get_request_id(self, idx: int = 0) -> str | None:
        """The id of request ``idx``, the one in the access log and the response header."""
        if self._ids is not None:
            return self._ids.get(idx)
        return self._requests[idx].request_id if 0 <= idx < len(self._requests) else None

    def get_sequence_id(self, idx: int = 0) -> Any:
        """The sequence that request ``idx`` belongs to, or None."""
        return self.get_request_header(idx, self.header_key_sequence_id)

    def get_request_header(self, idx: int, key: str) -> Any:
        """A header of request ``idx`` by its exact spelling, or None."""
        return self._requests[idx].headers.get(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """All headers of request ``idx``."""
        return self._requests[idx].headers

    def reply(self, idx: int) -> _Reply | None:
        """What was set for answer ``idx``, or None; read by the server."""
        return self._replies.get(idx)

    def _reply(self, idx: int) -> _Reply:
        reply = self._replies.get(idx)
        if reply is None:
            reply = self._replies[idx] = _Reply()
        return reply

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the content type of answer ``idx``."""
        self._reply(idx).content_type = value

    def get_response_content_type(self, idx: int) -> str | None:
        """The content type set for answer ``idx``, or None."""
        reply = self._replies.get(idx)
        return reply.content_type if reply and reply.content_type else None

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the status of answer ``idx``; the body stays the handler's."""
        reply = self._reply(idx)
        reply.status, reply.reason = code, phrase

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the status of every answer of the batch."""
        for idx in range(len(self._requests)):
            self.set_response_status(code, phrase, idx)

    def get_response_status(self, idx: int) -> tuple[int, str]:
        """(code, phrase) of answer ``idx``."""
        reply = self._replies.get(idx)
        return (reply.status, reply.reason) if reply else (200, "")

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of answer ``idx``."""
        self._reply(idx).set_header(key, value)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """The headers set for answer ``idx``."""
        reply = self._replies.get(idx)
        return reply.headers if reply else {}

    def set_response_headers(self, idx: int, headers: Mapping[str, str]) -> None:
        """Set several headers of answer ``idx``."""
        for key, value in headers.items():
            self.set_response_header(idx, key, value)
