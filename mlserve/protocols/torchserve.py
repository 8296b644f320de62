"""``/predictions`` and ``/explanations``: HTTP requests into core requests, results into HTTP answers.

Both HTTP doors (the fast lane and aiohttp) call these functions, so they answer alike. What a handler receives is
TorchServe's, see "Request rows" in docs/architecture.md; decoding JSON and text is left to the worker, which has time
for it: the frontend only cuts bodies into parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlserve.core.job import Job
from mlserve.core.messages import Chunk, InferenceRequest, InferenceResponse, Part, Timings
from mlserve.errors import ErrorKind, InvalidInput, ServeError, WorkerDied
from mlserve.protocols import torchserve_texts as texts
from mlserve.protocols.errors import describe_error, error_body
from mlserve.protocols.forms import parse_multipart, parse_urlencoded
from mlserve.settings import Settings

Headers = Sequence[tuple[bytes, bytes]]

JSON = "application/json"
_FORM = b"application/x-www-form-urlencoded"
_MULTIPART = b"multipart/form-data"
_READ = frozenset((b"content-type", b"x-request-id", b"x-request-timeout", b"x-mlserve-timing"))
_TIMEOUT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|)")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
WITHOUT_BODY = frozenset((204, 205, 304))
"""Statuses whose answers end with their head: bytes behind it would be read as the next answer (RFC 9112, 6.3)."""
_OURS = frozenset(("content-length", "transfer-encoding", "connection", "x-request-id", "content-type"))


@dataclass(frozen=True)
class HttpOptions:
    """The settings that shape HTTP requests and answers. ``cors`` are headers that every answer carries."""

    server_timing: bool = False
    error_detail: str = "summary"
    handler_error_status: int = 500
    torchserve_style: bool = False  # server.http_style
    open_inference: bool = False
    typed_fields: bool = True  # server.typed_form_fields
    cors: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> HttpOptions:
        """From the settings tree. Nothing is told to browsers while ``cors.allowed_origin`` is empty."""
        server, cors = settings.server, settings.cors
        allowed = (
            ("access-control-allow-origin", cors.allowed_origin),
            ("access-control-allow-methods", cors.allowed_methods),
            ("access-control-allow-headers", cors.allowed_headers),
        )
        return cls(
            server_timing=server.server_timing,
            error_detail=server.error_detail,
            handler_error_status=server.handler_error_status,
            torchserve_style=server.http_style == "torchserve",
            open_inference=server.open_inference,
            typed_fields=server.typed_form_fields,
            cors=tuple(pair for pair in allowed if pair[1]) if cors.allowed_origin else (),
        )


class Head:
    """What the server itself reads from a request's headers."""

    __slots__ = ("content_type", "request_id", "timeout", "timing")

    def __init__(self, headers: Headers) -> None:
        """Raises :class:`InvalidInput` for a deadline that cannot be read."""
        self.content_type = b""
        self.request_id = b""
        self.timeout = 0.0
        self.timing = False
        for name, value in headers:
            key = name.lower()
            if key not in _READ:
                continue
            if key == b"content-type":
                self.content_type = value
            elif key == b"x-request-id":
                self.request_id = value
            elif key == b"x-request-timeout":
                self.timeout = parse_timeout(value)
            else:
                self.timing = value.strip() not in (b"", b"0")


def parse_timeout(value: bytes) -> float:
    """Seconds in ``x-request-timeout``: ``2.5``, ``2.5s`` or ``250ms``. Raises :class:`InvalidInput`."""
    text = value.decode("latin-1").strip()
    match = _TIMEOUT.fullmatch(text)
    seconds = float(match[1]) / (1000.0 if match[2] == "ms" else 1.0) if match and len(text) < 20 else 0.0
    if not 0.0 < seconds <= 86400.0:
        raise InvalidInput(
            f"Header x-request-timeout must be like 2.5, 2.5s or 250ms, at most a day; got {text[:40]!r}"
        )
    return seconds


def is_form(content_type: bytes) -> bool:
    """Whether a body of this type is several parts."""
    start = content_type[:33].lower()
    return start == _FORM or start[:19] == _MULTIPART


def decode(
    head: Head,
    request_id: str,
    headers: Headers,
    body: bytes | memoryview,
    *,
    explain: bool = False,
    url_path: str | None = "",
    query: bytes = b"",
    version: str = "",
    typed_fields: bool = True,
) -> InferenceRequest:
    """Cut a request into parts. ``query`` is given only on routes whose parameters reach the handler.

    ``version`` is the one that the client named. ``typed_fields``: see :func:`parse_multipart`.

    Raises :class:`InvalidInput` for a form that is not one.
    """
    content_type = head.content_type
    if not is_form(content_type):
        parts = [Part("body", body, content_type.decode("latin-1"))]
    elif content_type[:33].lower() == _FORM:
        parts = parse_urlencoded(bytes(body))
    else:
        parts = parse_multipart(content_type, bytes(body), typed_fields)
    if query:
        parts = [*parse_urlencoded(query), *parts]
    return InferenceRequest(
        request_id, parts, headers, explain=explain, url_path=url_path, timeout=head.timeout, version=version
    )


class Answer:
    """An HTTP answer before any door writes it. Header names and values are safe to write as they are.

    ``bare`` is TorchServe's answer to a request that is too large: a status and ``content-length: 0``, nothing else.
    """

    __slots__ = ("bare", "body", "content_type", "headers", "reason", "status")

    def __init__(
        self,
        status: int,
        body: bytes | memoryview,
        content_type: str = "",
        headers: Sequence[tuple[str, str]] = (),
        reason: str = "",
        bare: bool = False,
    ) -> None:
        self.bare = bare
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.reason = reason


def encode(job: Job, options: HttpOptions, timing: bool = False) -> Answer:
    """The answer to a job that has ended."""
    result = job.result
    if isinstance(result, InferenceResponse):
        content_type = result.content_type
        if content_type != JSON:
            content_type = _UNSAFE.sub(" ", content_type)
        answer = Answer(result.status, result.body, content_type)
        if result.headers or result.reason:
            answer.headers = _clean(result.headers)
            answer.reason = _UNSAFE.sub(" ", result.reason)
    else:
        error = result or ServeError("The request ended without a result")
        answer = encode_error(error, options, job.queue.spec.key.name, job.request.version)
    if answer.status in WITHOUT_BODY:
        answer.body = b""
    if timing or options.server_timing:
        timings = job.timings
        if timings is not None:
            answer.headers = (*answer.headers, ("server-timing", server_timing(timings)))
    return answer


def one_line(text: str) -> str:
    """``text`` without the characters that could break out of a header."""
    return _UNSAFE.sub(" ", text)


def stream_head(chunk: Chunk) -> Answer:
    """The head of an answer that comes in pieces, of which this is the first."""
    headers = [("ts_stream_next", "true")]
    headers += [pair for pair in _clean(chunk.headers) if pair[0].lower() != "ts_stream_next"]
    return Answer(chunk.status, b"", _UNSAFE.sub(" ", chunk.content_type), headers, _UNSAFE.sub(" ", chunk.reason))


def _clean(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """A handler's headers, fit to be sent.

    Handlers pass on what clients sent, so control characters go (they would split the answer), and so do names that
    are none and those that belong to the server.
    """
    return [
        (name, _UNSAFE.sub(" ", value))
        for name, value in headers
        if _TOKEN.fullmatch(name) and name.lower() not in _OURS
    ]


def encode_error(error: ServeError, options: HttpOptions, model: str = "", version: str = "") -> Answer:
    """Any failure as JSON with code, type and message. ``model`` and ``version`` are those that the client named."""
    if options.torchserve_style:
        return _torchserve_error(error, options, model, version)
    status, kind, message = describe_error(error, handler_status=options.handler_error_status)
    if error.kind is ErrorKind.HANDLER_FAILED and error.status is None:
        message = _handler_message(error, options.error_detail)
    headers = []
    if error.retry_after is not None:
        headers.append(("retry-after", str(max(1, round(error.retry_after)))))
    return Answer(status, error_body(status, kind, message), JSON, headers)


def _handler_message(error: ServeError, detail: str) -> str:
    if detail == "none":
        return "Prediction failed"
    text = error.detail if detail == "traceback" and error.detail else error.message
    return f"Prediction failed: {text}"


def _torchserve_error(error: ServeError, options: HttpOptions, model: str, version: str) -> Answer:
    """In TorchServe's words; more than them only where ``server.error_detail`` asks for it."""
    if error.kind is ErrorKind.TOO_LARGE:
        return Answer(413, b"", reason=texts.reason_phrase(413), bare=True)
    status, kind, message = describe_error(error, handler_status=options.handler_error_status)
    fixed = texts.FAILURES.get(error.kind)
    if model and error.kind in (ErrorKind.NOT_READY, ErrorKind.OVERLOADED):
        message = texts.no_worker_text(model, version)
    elif fixed is not None:
        kind = "InternalServerException"
        status = 507 if status == 413 or (isinstance(error, WorkerDied) and error.killed) else status
        refused = error.status is not None or (error.kind is ErrorKind.HANDLER_FAILED and not error.detail)
        if not refused:  # else the handler, or the check of what it returned, has the words
            message = _with_fixed_text(fixed, error, options.error_detail)
    return Answer(status, error_body(status, kind, message), JSON, reason=texts.reason_phrase(status))


def _with_fixed_text(fixed: str, error: ServeError, detail: str) -> str:
    if detail == "traceback" and error.detail:
        return f"{fixed}\n{error.detail.strip()}"
    lines = error.detail.strip().splitlines() if error.message == fixed else [error.message]
    return f"{fixed}: {lines[-1]}" if detail != "none" and lines else fixed


def server_timing(timings: Timings) -> str:
    """The ``Server-Timing`` header's value; durations in milliseconds (https://www.w3.org/TR/server-timing/)."""
    phases = ("queue", "transfer", "preprocess", "inference", "postprocess")
    shown = ", ".join(f"{phase};dur={getattr(timings, phase) * 1000:.3f}" for phase in phases)
    return f'{shown}, batch;desc="{timings.batch_size}"'
