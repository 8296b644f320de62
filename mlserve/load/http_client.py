"""A client for HTTP/1.1 that only does what a load generator needs, as fast as Python can: one prepared request is
written, the answer is parsed by httptools, its end calls the runner, which writes the next one from within that call.

Connections are kept open; a server that closes one between two exchanges is connected to again.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from pathlib import Path
from time import perf_counter
from typing import Any

import httptools

from mlserve.errors import SettingError
from mlserve.load.slots import CLOSED_EARLY, EXAMPLE_LENGTH, WRONG_ANSWER, Done, NoServer, failure_of, same_answer
from mlserve.load.target import UNIX, Target, host_port

_OWN = ("host", "content-length", "transfer-encoding", "connection")  # headers that are made here


async def open_http(target: Target, done: Done) -> HttpClient:
    """Resolve the host once and read the certificates. Raises :class:`NoServer` and :class:`SettingError`."""
    if target.address.startswith(UNIX):
        return HttpClient(target, done, ("", 0), None)
    host, port = host_port(target.address)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NoServer(f"{host} has no address: {error.strerror or error}") from None
    place = await _first_that_answers([entry[4][:2] for entry in found])
    return HttpClient(target, done, place, _context(target) if target.scheme == "https" else None)


async def _first_that_answers(places: list[Any]) -> tuple[str, int]:
    """``localhost`` has two addresses, and a server may listen on one of them."""
    for place in places[:-1]:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(*place), 5.0)
        except (OSError, asyncio.TimeoutError):
            continue
        writer.close()
        return str(place[0]), int(place[1])
    return str(places[-1][0]), int(places[-1][1])


def _context(target: Target) -> ssl.SSLContext:
    file = target.cacert
    try:
        context = ssl.create_default_context(cafile=file or None)
    except (OSError, ssl.SSLError) as error:
        why = "there is no such file" if not Path(file).exists() else f"it holds no PEM certificates: {error}"
        raise SettingError(f"cacert: {file}: {why}") from None
    if target.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def requests_of(target: Target) -> list[bytes]:
    """Each payload as the bytes of a complete request. Raises :class:`SettingError` for headers that may not be set."""
    host = "localhost" if target.address.startswith(UNIX) else target.address.partition("://")[2]
    given = {name.lower() for name, _ in target.headers}
    if wrong := [name for name in _OWN[1:] if name in given]:
        raise SettingError(f"the header {wrong[0]} is made from the request and cannot be given")
    if any(set("\r\n") & set(name + value) for name, value in target.headers):
        raise SettingError("a header cannot hold a line break")
    if target.method == "HEAD":
        raise SettingError("HEAD has an answer without the body that it announces, which is not understood here")
    lines = [f"{target.method} {target.path} HTTP/1.1"]
    lines += [] if "host" in given else [f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in target.headers]
    found = []
    for payload in target.payloads:
        own = [f"Content-Type: {payload.content_type}"] if payload.content_type and "content-type" not in given else []
        if payload.body or target.method not in ("GET", "DELETE"):
            own.append(f"Content-Length: {len(payload.body)}")
        found.append("\r\n".join([*lines, *own, "", ""]).encode() + payload.body)
    return found


class HttpClient:
    """Slots with a connection each to one place."""

    def __init__(self, target: Target, done: Done, place: tuple[str, int], context: ssl.SSLContext | None) -> None:
        self.target = target
        self.done = done
        self.requests = requests_of(target)
        self.expected = [payload.expect for payload in target.payloads]
        self.expects = any(text is not None for text in self.expected)
        self.loop = asyncio.get_running_loop()
        self._place, self._context = place, context
        self.tasks: set[asyncio.Task[None]] = set()

    def slot(self) -> HttpSlot:
        """A new slot; it connects when it first sends."""
        return HttpSlot(self)

    async def close(self) -> None:
        """End the connections that are just being made."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def connect(self, link: _Link) -> None:
        """Raises OSError."""
        address = self.target.address
        if address.startswith(UNIX):
            await self.loop.create_unix_connection(lambda: link, address[len(UNIX) :])
            return
        host, port = self._place
        name = host_port(address)[0] if self._context is not None else None
        await self.loop.create_connection(lambda: link, host, port, ssl=self._context, server_hostname=name)


class HttpSlot:
    """One exchange at a time, over a connection that is kept."""

    __slots__ = ("_client", "_link", "busy", "detail", "intended", "number", "sent")

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._link: _Link | None = None
        self.intended = self.sent = 0.0
        self.number = 0
        self.busy = False
        self.detail = ""

    def send(self, number: int) -> None:
        """Write the request, after connecting where that is needed."""
        self.number = number
        self.busy = True
        self.sent = perf_counter()
        link = self._link
        if link is None:
            task = self._client.loop.create_task(self._connect())
            self._client.tasks.add(task)
            task.add_done_callback(self._client.tasks.discard)
        else:
            link.write(self._client.requests[number])

    async def _connect(self) -> None:
        link = self._link = _Link(self, self._client.expects)
        try:
            await self._client.connect(link)
        except OSError as error:
            if self._link is link:
                self._link = None
                kind, detail = failure_of(error)
                self.finish(kind, detail, 0.0, perf_counter(), 0, False)
            return
        if self._link is not link:
            link.drop()
            return
        link.write(self._client.requests[self.number])

    def answered(self, link: _Link, status: int, pieces: list[bytes], keep: bool) -> None:
        """The answer on ``link`` is complete."""
        if not keep:
            link.drop()
            self._link = None
        kind = detail = ""
        if not 200 <= status < 300:
            kind, detail = f"HTTP {status}", _example(b"".join(pieces))
        elif self._client.expects:
            expected, body = self._client.expected[self.number], b"".join(pieces)
            if expected is not None and not same_answer(body, expected):
                kind, detail = WRONG_ANSWER, _example(body)
        # The last chunk is empty: an answer in one chunk has two.
        self.finish(kind, detail, link.first, link.now, link.size, link.chunks > 2)

    def lost(self, link: _Link, error: BaseException | None) -> None:
        """``link`` is closed, by the server or by an error of the network."""
        if self._link is not link:
            return
        self._link = None
        if self.busy:
            kind, detail = (CLOSED_EARLY, "") if error is None else failure_of(error)
            self.finish(kind, detail, 0.0, perf_counter(), 0, False)

    def abort(self, kind: str) -> None:
        """Give the exchange under way up, and with it the connection; ``detail`` is the caller's."""
        self._drop()
        self.finish(kind, self.detail, 0.0, perf_counter(), 0, False)

    def close(self) -> None:
        """Close without calling ``done``."""
        self.busy = False
        self._drop()

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop()

    def finish(self, kind: str, detail: str, first: float, end: float, size: int, pieces: bool) -> None:
        """Tell the runner, which may send the next request from within."""
        self.busy = False
        self.detail = detail
        self._client.done(self, kind, first, end, size, pieces)


class _Link(asyncio.Protocol):
    """A connection and the parser of its answers."""

    __slots__ = ("_keeps", "_kept", "_parser", "_slot", "_transport", "_until_end", "chunks", "first", "now", "size")

    def __init__(self, slot: HttpSlot, keeps: bool) -> None:
        self._slot: HttpSlot | None = slot
        self._keeps = keeps
        self._kept: list[bytes] = []
        self._transport: Any = None
        self._until_end = True
        self._parser = httptools.HttpResponseParser(self)
        self.first = self.now = 0.0
        self.size = self.chunks = 0

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def drop(self) -> None:
        self._slot = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.now = perf_counter()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            slot = self._slot
            if slot is not None:
                slot.detail = str(error)
                slot.abort("answer is not HTTP")

    def connection_lost(self, exc: BaseException | None) -> None:
        slot = self._slot
        if slot is None:
            return
        if exc is None and slot.busy and self.first and self._until_end:
            self.now = perf_counter()
            self._complete(False)  # a body without a length ends with its connection
            return
        slot.lost(self, exc)

    def on_message_begin(self) -> None:
        self.first = 0.0
        self.size = self.chunks = 0
        self._until_end = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) in (14, 17) and name.lower() in (b"content-length", b"transfer-encoding"):
            self._until_end = False

    def on_headers_complete(self) -> None:
        self.first = self.now

    def on_chunk_header(self) -> None:
        self.chunks += 1

    def on_body(self, data: bytes) -> None:
        if not self.size:
            self.first = self.now
        self.size += len(data)
        if self._keeps or self._parser.get_status_code() >= 300:
            self._kept.append(data)

    def on_message_complete(self) -> None:
        self._complete(self._parser.should_keep_alive())

    def _complete(self, keep: bool) -> None:
        status, slot, kept = self._parser.get_status_code(), self._slot, self._kept
        if status < 200 or slot is None:
            return  # the real answer follows, or nobody waits any more
        if kept:
            self._kept = []
        if not slot.busy:
            slot.close()  # an answer that nobody asked for: what follows on this connection cannot be told apart
            return
        slot.answered(self, status, kept, keep)


def _example(body: bytes) -> str:
    """The beginning of an answer in one line; of an error document its type and message."""
    text = body[:4096].decode("utf-8", "replace")
    try:
        document = json.loads(body)
        text = f"{document['type']}: {document['message']}"
    except (ValueError, KeyError, TypeError):
        pass
    return " ".join(text.split())[:EXAMPLE_LENGTH]
