"""The fast lane: hot inference routes on a bare protocol, everything else handed to aiohttp.

aiohttp with a router serves 27,500 requests a second on one core here, this protocol's skeleton 197,000. So requests
for ``/predictions`` and ``/explanations`` whose path is in the route table are parsed with httptools and answered by
callbacks, with no task and no coroutine. Any other request hands the *connection* to aiohttp's own protocol, once and
for good, by replaying the bytes of that request at a message boundary with nothing pending (uvicorn does the same for
WebSockets). aiohttp serves the hot routes too, with the same codecs, so a connection that has moved loses only speed.

Replay is exact where the message to replay is the first one in the bytes since the last boundary, which is always so
without pipelining. Behind a pipelined hot request the parser cannot tell where the cold one began; then whole cold
messages are collected from the parser and written anew, with a content-length.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, cast

import httptools

from mlserve.errors import ErrorKind, InvalidInput, ServeError
from mlserve.protocols.torchserve import Head, decode, encode_error
from mlserve.rest.exchange import Exchange
from mlserve.rest.http1 import request_bytes
from mlserve.rest.lane import LAST_CALL, LaneShared
from mlserve.rest.routes import Route

MAX_PIPELINED = 32  # answers a connection may be owed before reading pauses; aiohttp's number
STREAM_BACKLOG = 32 << 20  # a client this many bytes behind its stream is cut off: nothing else bounds the memory
LINGER = 2.0  # seconds to read and drop what a refused client still sends, so that it can read why
_HOT_METHODS = frozenset((b"POST", b"GET", b"PUT"))


class FastLane(asyncio.Protocol):
    """One client connection, until it is handed over or closed."""

    transport: asyncio.Transport
    client: str

    def __init__(self, shared: LaneShared) -> None:
        self.shared = shared
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges: deque[Exchange] = deque()
        self._paused = False
        self._refused = False  # the last request could not be read: its answer ends the connection
        self._deaf = False  # the last answer is decided: drop what still comes
        # the message being read
        self._reading = False
        self._head_done = False
        self._head_size = 0  # bytes fed while the head was not complete: bounds what the parser itself holds
        self._cold = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._route: Route | None = None
        self._body: list[bytes] = []
        self._body_size = 0
        # for the handover
        self._raw: list[bytes] = []  # bytes since the last message boundary, while the head is not complete
        self._messages = 0  # messages begun in those bytes
        self._replay: list[bytes] = []
        self._moved = False
        self._since = time.monotonic()  # of the message's first byte, or of the last answer

    # -- transport ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.client = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
        self.shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: nobody waits for what it asked."""
        self.shared.forget(self)
        for exchange in list(self._exchanges):  # ending one takes it off the deque
            if exchange.job is not None and not exchange.finished:
                self.shared.service.cancel(exchange.job)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._deaf:
            return
        if self._cold and self._raw:  # waiting to be handed over
            self._raw.append(data)
            return
        if not self._reading:
            self._raw, self._messages, self._head_size = [data], 0, 0
            self._since = time.monotonic()
        elif self._raw:
            self._raw.append(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserCallbackError, httptools.HttpParserError) as error:
            if not (self._deaf or (self._cold and self._raw)):
                self._refuse(_parse_error(error))
        if self._reading and not self._head_done:
            self._head_size += len(data)
            if self._head_size > self.shared.limits.max_header_size:
                self._refuse(self._head_too_large())
        if self._cold:
            self._try_handover()

    def pause_writing(self) -> None:
        """The client reads slowly: take nothing more from it."""
        self._pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._resume()

    # -- parser callbacks ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._reading = True
        self._head_done = False
        self._messages += 1
        if self._messages > 1 and not self._cold:
            self._raw = []  # the boundary is behind: replaying these bytes would repeat a request
        self._url = b""
        self._headers = []
        self._body = []
        self._body_size = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers.append((name, value))

    def _head_too_large(self) -> _Refusal:
        limit = self.shared.limits.max_header_size
        return _Refusal(431, f"Request line and headers are larger than {limit} bytes (max_header_size)")

    def on_headers_complete(self) -> None:
        """Decide the lane."""
        self._head_done = True
        path = self._url.partition(b"?")[0]
        self._route = self.shared.routes.table.get(path)
        hot = self._route is not None and self._parser.get_method() in _HOT_METHODS
        if not hot or self._parser.should_upgrade():
            self._cold = True
            return
        if self._cold:
            return
        self._raw = []
        size = len(self._url)
        expect = False
        for name, value in self._headers:
            size += len(name) + len(value) + 4
            if len(name) == 14 and name.lower() == b"content-length":
                self._check_size(int(value))
            elif len(name) == 6 and name.lower() == b"expect":
                expect = True
        if size > self.shared.limits.max_header_size:
            raise self._head_too_large()
        if expect and not self._exchanges:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._body.append(data)
        self._body_size += len(data)
        self._check_size(self._body_size)

    def _check_size(self, size: int) -> None:
        limit = self.shared.limits.max_request_size
        if size > limit:
            raise _Refusal(413, f"Request body is larger than {limit} bytes (max_request_size)")

    def on_message_complete(self) -> None:
        """A whole request: submit it, or keep it for aiohttp."""
        self._reading = False
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        if self._deaf:
            return
        if self._cold:
            if not self._raw:
                parser = self._parser
                self._replay.append(
                    request_bytes(parser.get_method(), self._url, parser.get_http_version(), self._headers, body)
                )
        elif self._route is not None:
            self._submit(self._route, body)

    # -- requests -----------------------------------------------------------------------------------------------------

    def _submit(self, route: Route, body: bytes) -> None:
        shared, headers, parser = self.shared, self._headers, self._parser
        keep_alive = parser.should_keep_alive() and not shared.closing
        head = None
        error: ServeError | None = None
        try:
            head = Head(headers)
        except InvalidInput as bad:
            error = bad
        request_id = shared.request_ids(head.request_id if head is not None else b"")
        exchange = Exchange(
            self,
            parser.get_method(),
            self._url,
            request_id,
            keep_alive,
            parser.get_http_version() != "1.0",
            head is not None and head.timing,
        )
        self._push(exchange)
        self._deaf = not keep_alive
        if head is not None:
            try:
                request = decode(head, request_id, headers, body, explain=route.explain)
                exchange.job = shared.service.submit(route.handle, request, exchange.on_done, exchange.on_chunk)
                return
            except ServeError as bad:
                error = bad
        exchange.answer(encode_error(error or ServeError("unreachable"), shared.options))

    def _push(self, exchange: Exchange) -> None:
        exchange.is_head = not self._exchanges
        self._exchanges.append(exchange)
        if len(self._exchanges) >= MAX_PIPELINED:
            self._pause()

    def exchange_done(self, exchange: Exchange) -> None:
        """An answer is complete: let it and those behind it go, in order."""
        exchanges = self._exchanges
        while exchanges and exchanges[0].finished:
            head = exchanges.popleft()
            head.flush()
            head.log()
            if not head.keep_alive:
                self._close()
                return
        if exchanges:
            exchanges[0].flush()
        elif not self._reading:
            self._since = time.monotonic()
            if self.shared.closing:  # the answer began before that was known, and promised to keep the connection
                self.last_call()
        if self._paused and len(exchanges) < MAX_PIPELINED // 2:
            self._resume()
        if self._cold:
            self._try_handover()

    def write(self, pieces: list[bytes | memoryview]) -> None:
        """Send pieces of the head exchange's answer."""
        transport = self.transport
        if transport.is_closing():
            return
        if len(pieces) == 1:
            transport.write(pieces[0])
        else:
            transport.writelines(pieces)
        if transport.get_write_buffer_size() > STREAM_BACKLOG and not self._exchanges[0].finished:
            transport.abort()

    def abort(self, exchange: Exchange) -> None:
        """Break the connection off in the middle of a stream."""
        exchange.finished = True
        exchange.log()
        self.transport.abort()

    # -- refusing, closing, timing ------------------------------------------------------------------------------------

    def _refuse(self, refusal: _Refusal) -> None:
        """Answer a request that cannot be read, and end the connection: its framing is lost."""
        self._refused = self._deaf = True
        self._reading = False
        self._cold = False
        error = ServeError(refusal.message, kind=ErrorKind.INVALID_INPUT, status=refusal.status)
        if refusal.status == 413:
            error.kind = ErrorKind.TOO_LARGE
        method = self._parser.get_method() or b"-"
        exchange = Exchange(self, method, self._url, self.shared.request_ids(), False, True, False)
        self._push(exchange)
        exchange.answer(encode_error(error, self.shared.options))

    def _close(self) -> None:
        """Close after what is written; a client still sending is read for a moment, or a reset would eat the answer."""
        if not self._refused:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.shared.loop.call_later(LINGER, self.transport.close)

    def ends_with(self, exchange: Exchange) -> bool:
        """At shutdown: whether this exchange is the newest. Then it is the last one, and may tell the client so."""
        self._deaf = self._deaf or self._exchanges[-1] is exchange
        return self._deaf and self._exchanges[-1] is exchange

    def last_call(self) -> None:
        """Close the connection if it owes nothing and, in a moment, is still owed nothing."""
        self.shared.loop.call_later(LAST_CALL, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if not self._exchanges and not self._reading:
            self.transport.close()

    def cut(self) -> None:
        """End the connection now."""
        self.transport.abort()

    def check_time(self, now: float) -> None:
        """Called once a second: end connections whose client stalls."""
        if self._exchanges or self._refused:
            return
        waited = now - self._since
        if self._reading:
            if waited > self.shared.limits.header_timeout:
                limit = self.shared.limits.header_timeout
                self._refuse(_Refusal(408, f"The request did not arrive within {limit:g} s (header_timeout)"))
        elif waited > self.shared.limits.keep_alive_timeout:
            self.transport.close()

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    # -- handover -----------------------------------------------------------------------------------------------------

    def _try_handover(self) -> None:
        """Give the connection to aiohttp if nothing is pending and the bytes to replay are at hand."""
        if self._moved or self._deaf or self.transport.is_closing():
            return
        if self._reading and not self._raw:
            return  # in the middle of a pipelined cold message: wait until it is whole
        if self._exchanges:
            self._pause()
            return
        replay = b"".join(self._raw or self._replay)
        self._moved = True
        self.shared.forget(self)
        self._resume()
        slow = cast(Any, self.shared.slow())
        self.transport.set_protocol(slow)
        slow.connection_made(self.transport)
        slow.data_received(replay)


class _Refusal(Exception):
    """A request that is answered before it is complete."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def _parse_error(error: Exception) -> _Refusal:
    cause = error.__context__
    if isinstance(cause, _Refusal):
        return cause
    return _Refusal(400, f"Invalid HTTP message: {error}")
