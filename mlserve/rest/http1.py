"""Writing HTTP/1.1 answers as bytes: prebuilt lines and header blocks, one clock tick per second for the date."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from mlserve.errors import ServeError
from mlserve.protocols.errors import error_body, json_body
from mlserve.protocols.torchserve import JSON, Answer, HttpOptions, encode_error, one_line
from mlserve.protocols.torchserve_texts import HTTPS_ONLY, NO_CACHE, reason_phrase

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED_END: Final = b"0\r\n\r\n"
_KEPT: Final = b"connection: keep-alive\r\n\r\n"
_LAST: Final = b"connection: close\r\n\r\n"
_APART: Final = 64 << 10  # bytes of a body that is not worth copying behind its head
_DIGITS: Final = [b"%d" % number for number in range(1000)]


class DateHeader:
    """The ``date`` line, formatted once a second instead of once a request."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def __call__(self) -> bytes:
        """``date: ...`` with its line end (RFC 9110, 6.6.1)."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._line = b"date: " + formatdate(now, usegmt=True).encode("ascii") + b"\r\n"
        return self._line


date_line: Final = DateHeader()


def status_line(status: int, reason: str = "") -> bytes:
    """The first line of an answer."""
    if status == 200 and not reason:
        return _OK
    phrase = reason or _PHRASES.get(status, "")
    return b"HTTP/1.1 %d %s\r\n" % (status, phrase.encode("latin-1", "replace"))


def length_line(status: int, length: int) -> bytes:
    """``content-length: ...``; a 204 and a 304 have none (RFC 9110, 8.6)."""
    return b"" if status in (204, 304) else b"content-length: %d\r\n" % length


def header_lines(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Headers as they are sent."""
    return b"".join(f"{name}: {value}\r\n".encode("latin-1", "replace") for name, value in headers)


class Heads:
    """What stands in front of a body. ``closes_after_errors``: an answer of 400 and more ends its connection."""

    closes_after_errors = False

    def __init__(self, cors: tuple[tuple[str, str], ...] = ()) -> None:
        self._cors = {name: header_lines(((name, value),)) for name, value in cors}
        self._all_cors = header_lines(cors)
        self._ended = -1.0
        # Of the last plain answer: its type, and what stands before and behind the request id, and at the end.
        self._type: str | None = None
        self._before = self._behind = self._tail = b""

    def _allowed(self, answer: Answer) -> bytes:
        """The CORS headers, less those that the handler set itself."""
        if not self._all_cors or not answer.headers:
            return self._all_cors
        own = {name.lower() for name, _ in answer.headers}
        return b"".join(line for name, line in self._cors.items() if name not in own)

    def head(self, answer: Answer, request_id: str, framing: bytes, keep_alive: bool, old: bool = False) -> bytes:
        """``framing`` is the content-length or transfer-encoding line. An ``old`` client speaks HTTP/1.0: it reads up
        to the end of the connection, unless it is told that this stays open."""
        # One bytes interpolation: half the time of joining a list of the same pieces.
        more = self._all_cors
        if answer.headers:
            more = header_lines((*answer.headers,)) + self._allowed(answer)
        return b"%bx-request-id: %b\r\n%b%b%b%b%b" % (
            status_line(answer.status, answer.reason),
            request_id.encode("ascii"),
            b"content-type: %b\r\n" % answer.content_type.encode("latin-1", "replace") if answer.content_type else b"",
            more,
            framing,
            date_line(),
            _LAST if not keep_alive else _KEPT if old else b"\r\n",
        )

    def plain(self, content_type: str, body: bytes | memoryview, raw_id: bytes, ended: float) -> bytes | None:
        """As :meth:`answer`, in one piece, for a small body with a 200, no headers of its own, and a connection that
        stays open; None if that is not so. 1.3 us instead of 3: only id and length are not there already.

        Requests that ``ended`` at the same moment have the same date.
        """
        length = len(body)
        if length >= _APART or not length:
            return None
        if ended != self._ended:
            self._ended, self._tail = ended, b"\r\n" + self._end()
        if content_type is not self._type:
            if content_type != self._type:
                self._before, self._behind = self._frame(content_type)
            self._type = content_type
        digits = _DIGITS[length] if length < 1000 else b"%d" % length
        small = body if isinstance(body, bytes) else bytes(body)
        return b"%b%b%b%b%b%b" % (self._before, raw_id, self._behind, digits, self._tail, small)

    def _frame(self, content_type: str) -> tuple[bytes, bytes]:
        return _OK + b"x-request-id: ", b"\r\n" + _typed(content_type) + self._all_cors + b"content-length: "

    def _end(self) -> bytes:
        return date_line() + b"\r\n"

    def answer(
        self, answer: Answer, request_id: str, keep_alive: bool, with_body: bool = True, old: bool = False
    ) -> list[bytes | memoryview]:
        """Head and body, to be written together; small ones come joined. HEAD gets no body, but is told its length."""
        body = answer.body
        length = len(body)
        head = self.head(answer, request_id, length_line(answer.status, length), keep_alive, old)
        if not with_body or not length:
            return [head]
        if length < _APART:
            return [head + body]
        return [head, body]


class TorchServeHeads(Heads):
    """The same as TorchServe writes it, byte for byte: order, spelling, no date."""

    closes_after_errors = True

    def __init__(self, cors: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(cors)
        self._no_cache = header_lines(NO_CACHE)
        self._common = self._all_cors + self._no_cache

    def _frame(self, content_type: str) -> tuple[bytes, bytes]:
        before = b"HTTP/1.1 200 \r\n" + _typed(content_type) + b"x-request-id: "
        return before, b"\r\n" + self._common + b"content-length: "

    def _end(self) -> bytes:
        return _KEPT

    def head(self, answer: Answer, request_id: str, framing: bytes, keep_alive: bool, old: bool = False) -> bytes:
        """See :class:`Heads`. Every client is told."""
        if answer.bare:
            return status_line(answer.status, answer.reason) + framing + b"\r\n"
        common = self._common
        more = b""
        if answer.headers:
            more = header_lines((*answer.headers,))
            common = self._allowed(answer) + self._no_cache
        return b"HTTP/1.1 %d %b\r\n%b%bx-request-id: %b\r\n%b%b%b" % (
            answer.status,
            answer.reason.encode("latin-1", "replace"),
            b"content-type: %b\r\n" % answer.content_type.encode("latin-1", "replace") if answer.content_type else b"",
            more,
            request_id.encode("ascii"),
            common,
            framing,
            _KEPT if keep_alive else _LAST,
        )


def _typed(content_type: str) -> bytes:
    return f"content-type: {one_line(content_type)}\r\n".encode("latin-1", "replace") if content_type else b""


def heads_for(options: HttpOptions) -> Heads:
    """The heads of the setting ``server.http_style``."""
    return TorchServeHeads(options.cors) if options.torchserve_style else Heads(options.cors)


def https_only(options: HttpOptions, request_id: str) -> bytes:
    """The whole answer to somebody who speaks plain HTTP to a port that speaks TLS."""
    if options.torchserve_style:
        answer = Answer(403, json_body({"status": HTTPS_ONLY}), JSON, reason=reason_phrase(403))
    else:
        answer = Answer(400, error_body(400, "BadRequestException", "This port speaks TLS: use https://"), JSON)
    return b"".join(heads_for(options).answer(answer, request_id, keep_alive=False))


def too_many(error: ServeError, options: HttpOptions, request_id: str) -> bytes:
    """The whole answer to somebody whose connection is one too many."""
    return b"".join(heads_for(options).answer(encode_error(error, options), request_id, keep_alive=False))


def chunk_bytes(data: bytes | memoryview) -> bytes:
    """One piece of a chunked body."""
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))


def request_bytes(
    method: bytes, url: bytes, version: str, headers: list[tuple[bytes, bytes]], body: bytes | memoryview
) -> bytes:
    """A whole request as bytes again. Its body was read to the end, so it is framed by a content-length."""
    lines = [b"%b %b HTTP/%b\r\n" % (method, url, version.encode("ascii"))]
    lines += [
        b"%b: %b\r\n" % (name, value)
        for name, value in headers
        if name.lower() not in (b"content-length", b"transfer-encoding", b"expect")
    ]
    if body:
        lines.append(b"content-length: %d\r\n" % len(body))
    return b"".join(lines) + b"\r\n" + body
