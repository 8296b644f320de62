"""A fast-lane connection apart from what it reads: owed answers, pausing, refusing, closing, and stalled clients."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from mlserve.core.intake import RETRY_AFTER
from mlserve.errors import ErrorKind, ServeError
from mlserve.protocols.torchserve import encode_error
from mlserve.protocols.torchserve_texts import INVALID_HTTP
from mlserve.rest.exchange import Exchange
from mlserve.rest.lane import LAST_CALL, LaneShared, Refusal
from mlserve.rest.request_head import RequestHead

MAX_PIPELINED: Final = 32  # answers a connection may be owed before reading pauses; aiohttp's number
LINGER: Final = 2.0  # seconds to read and drop what a refused client still sends, so that it can read why


class LaneConnection(asyncio.Protocol):
    """What :class:`mlserve.rest.fast.FastLane` stands on.

    Both have slots: with more than 30 attributes an object gets a dictionary of its own, 2 KiB that each of 512
    connections brings into the cache for every request.
    """

    __slots__ = (
        "_cold",
        "_deaf",
        "_exchanges",
        "_paused",
        "_reading",
        "_refused",
        "_since",
        "_stuffed",
        "_unsent",
        "_url",
        "client",
        "shared",
        "transport",
    )

    transport: asyncio.Transport
    client: str

    def __init__(self, shared: LaneShared) -> None:
        self.shared = shared
        self._exchanges: list[Exchange] = []  # answers that are owed, oldest first
        self._paused = False  # reading, by us
        self._stuffed = False  # the client does not read what is written
        self._unsent = 0  # bytes, when last looked at
        self._refused = False  # the last request could not be read: its answer ends the connection
        self._deaf = False  # the last answer is decided: drop what still comes
        self._reading = False  # in the middle of a message
        self._cold = False  # it goes to aiohttp
        self._url = b""
        self._since = shared.now()  # of the message's first byte, its last piece, or the last answer

    def _method(self) -> bytes:
        """Of the message being read."""
        raise NotImplementedError

    def exchange_done(self, exchange: Exchange) -> None:
        """An answer is complete: let it and those behind it go, in order."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.client = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
        self.shared.connections.add(self)

    def pause_writing(self) -> None:
        """The client reads slowly: take nothing more from it."""
        self._stuffed = True
        self._pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._stuffed = False
        self._resume()

    def _push(self, exchange: Exchange) -> None:
        exchange.is_head = not self._exchanges
        self._exchanges.append(exchange)
        if len(self._exchanges) >= MAX_PIPELINED:
            self._pause()

    def _abandon(self) -> None:
        exchanges = self._exchanges.copy()  # ending one takes it off the list
        for exchange in exchanges:
            if exchange.submitted and not exchange.finished:
                self.shared.service.cancel(exchange)
        for exchange in exchanges:
            exchange.leave()

    def write(self, pieces: list[bytes | memoryview]) -> None:
        """Send pieces of the head exchange's answer."""
        transport = self.transport
        if transport.is_closing():
            return
        if len(pieces) == 1:
            transport.write(pieces[0])
        else:
            transport.writelines(pieces)

    # -- refusing, closing, timing ------------------------------------------------------------------------------------

    def refuse(self, refusal: Refusal) -> None:
        """Answer a request that cannot be read, and end the connection: its framing is lost."""
        self._refused = self._deaf = True
        self._reading = False
        self._cold = False
        bare = self.shared.options.torchserve_style and refusal.status == 400
        error = ServeError(
            INVALID_HTTP if bare else refusal.message, kind=ErrorKind.INVALID_INPUT, status=refusal.status
        )
        if refusal.status == 413:
            error.kind = ErrorKind.TOO_LARGE
        elif refusal.status == 503:
            error.kind, error.retry_after = ErrorKind.OVERLOADED, RETRY_AFTER
        exchange = Exchange(self, RequestHead(self._method() or b"-", self._url), self.shared.request_ids.raw(), False)
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
        if self._exchanges:
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:  # the client reads, if slowly
            self._unsent, self._since = unsent, now
        waited = now - self._since
        if self._reading:
            if waited > self.shared.limits.header_timeout:
                limit = self.shared.limits.header_timeout
                self.refuse(Refusal(408, f"The request did not arrive within {limit:g} s (header_timeout)"))
        elif waited > self.shared.limits.keep_alive_timeout:
            if unsent:
                self.transport.abort()  # closing would wait for the client to read
            elif not self._refused:
                self.transport.close()

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        """Read on, unless there is one more reason not to."""
        owed = len(self._exchanges)
        if self._stuffed or owed >= MAX_PIPELINED // 2 or (owed and self._cold):
            return
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
