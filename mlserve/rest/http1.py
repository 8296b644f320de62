"""Writing HTTP/1.1 answers as bytes: prebuilt status lines, one clock tick per second for the date."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus

from mlserve.protocols.torchserve import Answer

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED_END = b"0\r\n\r\n"


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


date_line = DateHeader()


def status_line(status: int, reason: str = "") -> bytes:
    """The first line of an answer."""
    if status == 200 and not reason:
        return _OK
    phrase = reason or _PHRASES.get(status, "")
    return b"HTTP/1.1 %d %s\r\n" % (status, phrase.encode("latin-1", "replace"))


def head_bytes(answer: Answer, request_id: str, framing: bytes, keep_alive: bool) -> bytes:
    """Everything in front of the body; ``framing`` is the content-length or transfer-encoding line."""
    # One bytes interpolation: half the time of joining a list of the same pieces.
    more = b""
    for name, value in answer.headers:
        more += f"{name}: {value}\r\n".encode("latin-1", "replace")
    return b"%bx-request-id: %b\r\n%b%b%b%b%b" % (
        status_line(answer.status, answer.reason),
        request_id.encode("ascii"),
        b"content-type: %b\r\n" % answer.content_type.encode("latin-1", "replace") if answer.content_type else b"",
        more,
        framing,
        date_line(),
        b"\r\n" if keep_alive else b"connection: close\r\n\r\n",
    )


def answer_bytes(answer: Answer, request_id: str, keep_alive: bool, with_body: bool = True) -> list[bytes | memoryview]:
    """Head and body, to be written together; small ones come joined. No body for HEAD, whose length is still told."""
    body = answer.body
    length = len(body)
    head = head_bytes(answer, request_id, b"content-length: %d\r\n" % length, keep_alive)
    if not with_body or not length:
        return [head]
    if length < 65536 and isinstance(body, bytes):
        return [head + body]
    return [head, body]


def chunk_bytes(data: bytes | memoryview) -> bytes:
    """One piece of a chunked body."""
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))


def request_bytes(method: bytes, url: bytes, version: str, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
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
