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

import logging
from typing import Any, Final, cast

import httptools

from mlserve.core.intake import Held
from mlserve.errors import ServeError
from mlserve.protocols.errors import INTERNAL_ERROR
from mlserve.protocols.torchserve import encode_error
from mlserve.rest.connection import LaneConnection
from mlserve.rest.exchange import Exchange
from mlserve.rest.http1 import request_bytes
from mlserve.rest.lane import LaneShared, Refusal, authorization, parse_error
from mlserve.rest.large_body import LARGE, LikeBefore, gather, read_on, whole
from mlserve.rest.request_head import RequestHead
from mlserve.rest.routes import Route

log = logging.getLogger(__name__)

MISSES: Final = 8  # requests in a row with another head than before: what heads begin with is not kept any more
_VERSIONS: Final = frozenset(("1.1", "1.0"))  # the parser also lets 0.9 and 2.0 through; aiohttp refuses them
_SPENT = httptools.HttpRequestParser(None)  # a lane and its parser refer to each other: that cycle is 5 KiB that stay


class FastLane(LaneConnection):
    """One client connection, until it is handed over or closed."""

    __slots__ = (
        "_advanced",
        "_body",
        "_body_size",
        "_fed",
        "_head_done",
        "_head_size",
        "_headers",
        "_known",
        "_known_table",
        "_large",
        "_large_head",
        "_messages",
        "_missed",
        "_moved",
        "_parser",
        "_raw",
        "_replay",
        "_replay_size",
        "_route",
    )

    def __init__(self, shared: LaneShared) -> None:
        super().__init__(shared)
        self._parser = httptools.HttpRequestParser(self)
        # the message being read
        self._head_done = False
        self._advanced = False  # in the bytes just fed a head was completed or a piece of a body came
        self._head_size = 0  # bytes fed since the last such advance: bounds what the parser itself holds
        self._headers: list[tuple[bytes, bytes]] = []
        self._route: Route | None = None
        self._body: list[bytes | Held] = []
        self._body_size = self._large = 0  # the latter of its length, if it is worth being read without the parser
        self._large_head: RequestHead | None = None
        # for the handover
        self._raw: list[bytes] = []  # bytes since the last message boundary, while the head is not complete
        self._messages = 0  # messages begun in those bytes
        self._replay: list[Held] = []
        self._moved, self._replay_size = False, 0
        # for requests that begin with the same bytes
        self._fed = b""  # the bytes just fed, if they began with a message
        self._known: RequestHead | None = None
        self._known_table: dict[bytes, Route] = {}  # in which its route was found
        self._missed = 0  # requests in a row that began otherwise

    # -- transport ----------------------------------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: nobody waits for what it asked."""
        self.shared.forget(self)
        self._abandon()
        self._parser = _SPENT

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._known is not None and not (self._reading or self._cold or self._deaf) and self._again(data):
            return
        if self._deaf:
            return
        if self._cold and self._raw:  # waiting to be handed over
            self._raw.append(data)
            return
        if not self._reading:
            self._raw, self._messages, self._head_size = [data], 0, 0
            self._fed = data
            self._since = self.shared.now()
        else:
            self._fed = b""
            if self._raw:
                self._raw.append(data)
        self._advanced = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserCallbackError, httptools.HttpParserError) as error:
            if not (self._deaf or (self._cold and self._raw)):
                self.refuse(parse_error(error))
        if self._reading:
            self._check_head(len(data))
            if self._large and not (self._cold or self._deaf):
                self._read_large()
        if self._cold:
            self._try_handover()

    def body_goes_on(self) -> bool:
        """A piece of a large body has come. False when it is not wanted any more."""
        self._since = self.shared.now()
        return not self._deaf

    def body_read(self, body: memoryview) -> None:
        """The whole of a large body has been read."""
        head, self._large_head = self._large_head, None
        if self._large:
            self._large = 0
            self._parser = httptools.HttpRequestParser(self)  # the old one waits for the rest of the body
        self._reading = False
        if not self._deaf and head is not None:
            self._submit(head, body)
            self._await_another(head)

    def _await_another(self, head: RequestHead) -> None:
        if head is self._known and head.again and self.shared.bodies is not None and not self._deaf:
            self.transport.set_protocol(LikeBefore(self, head))

    def like_before(self, data: memoryview, come: int) -> bool:
        """The first ``come`` bytes of a request have been read to ``data``. False if it is not like the one before."""
        known, busy = self._known, self._reading or self._cold or self._deaf
        if known is None or busy or self._known_table is not self.shared.routes.table:
            return False
        at, length = known.measure
        if come <= at or come > length or length > len(data) or not known.is_in(data):
            return False
        if come == length:
            self._submit(known, data[at:length])
            return True
        self._reading, self._large_head = True, known
        self._raw, self._since = [], self.shared.now()
        read_on(self, length - at, (data[at:come],), data[at:length])
        return True

    def _read_large(self) -> None:
        """The parser has read a head and the first of a large body."""
        self._large_head = head = self._parsed_head()
        self._remember(head, self._body_size, self._large)
        read_on(self, self._large, self._body)
        self._body = []

    def _remember(self, head: RequestHead, come: int, length: int) -> None:
        """Compare what follows with ``head``, if that came alone, with ``come`` bytes of its body of ``length``."""
        table = self.shared.routes.table
        like = self._fed and self._messages == 1 and self._missed < MISSES and head.keep(self._fed, come, length)
        if like and table.get(self._url.partition(b"?")[0]) is head.route:
            self._known, self._known_table = head, table
        self._fed = b""  # the body is in it, and the connection may stay idle

    def _again(self, data: bytes) -> bool:
        """Submit ``data`` if it is one whole request that begins like the one before; or read on, if it is large."""
        known, shared = self._known, self.shared
        if known is None or self._known_table is not shared.routes.table:
            self._known = None  # its route may lead elsewhere now
            return False
        body = known.body_of(data, shared.limits.max_request_size)
        if body is None:
            length, at = known.begins(data, shared.limits.max_request_size)
            if length >= LARGE:
                self._missed = 0
                self._reading, self._large_head = True, known
                self._raw, self._since = [], self.shared.now()
                read_on(self, length, (memoryview(data)[at:],))
                return True
            self._missed += 1
            if self._missed >= MISSES:
                self._known = None
            return False
        self._missed = 0
        self._submit(known, body)
        if known.again:
            self._await_another(known)
        return True

    def _method(self) -> bytes:
        method: bytes = self._parser.get_method() if self._large_head is None else self._large_head.method
        return method

    # -- parser callbacks ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._reading = True
        self._head_done = False
        self._messages += 1
        if self._messages > 1:
            self._advanced = True
            if not self._cold:
                self._raw = []  # the boundary is behind: replaying these bytes would repeat a request
        self._url = b""
        self._headers = []
        self._body = []
        self._body_size = self._large = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. What comes behind a chunked body is dropped: trailers must not change what was decided."""
        if not self._head_done:
            self._headers.append((name, value.rstrip(b" \t")))  # the parser leaves it (RFC 9112, 5.1)

    def _check_head(self, size: int) -> None:
        """In the middle of a message, after ``size`` more bytes."""
        if self._advanced:
            self._head_size = 0
            self._since = self.shared.now()
            return
        self._head_size += size
        if self._head_size > self.shared.limits.max_header_size:
            self.refuse(self.shared.limits.head_too_large())

    def on_headers_complete(self) -> None:
        """Decide the lane."""
        self._head_done = self._advanced = True
        path, method = self._url.partition(b"?")[0], self._parser.get_method()
        self._route = self.shared.routes.table.get(path) or self.shared.told(method, path, self._headers)
        hot = self._route is not None and method in self.shared.hot_methods
        if not hot or self._parser.should_upgrade() or self._parser.get_http_version() not in _VERSIONS:
            self._cold = True
            return
        if self._cold:
            return
        self._raw = []
        size = len(self._url)
        expect = False
        length = 0
        for name, value in self._headers:
            size += len(name) + len(value) + 4
            if len(name) == 14 and name.lower() == b"content-length":
                length = int(value)
                self._check_size(length)
            elif len(name) == 6 and name.lower() == b"expect":
                expect = True
        if size > self.shared.limits.max_header_size:
            raise self.shared.limits.head_too_large()
        if length >= LARGE:  # the parser takes no request with a length and a transfer coding
            self._large = length
        if expect and not self._exchanges and self._parser.get_http_version() != "1.0":  # RFC 9110, 10.1.1
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._advanced = True
        self._body.append(data)
        self._body_size += len(data)
        self._check_size(self._body_size)
        if self._body_size > LARGE and not self._large:
            gather(self.shared.service.intake, self._body)

    def _check_size(self, size: int) -> None:
        limit = self.shared.limits.max_request_size
        if size > limit:
            raise Refusal(413, f"Request body is larger than {limit} bytes (max_request_size)")

    def on_message_complete(self) -> None:
        """A whole request: submit it, or keep it for aiohttp."""
        self._reading = False
        body, self._body = whole(self._body), []
        if self._deaf:
            return
        if self._cold:
            if not self._raw:
                method, version = self._parser.get_method(), self._parser.get_http_version()
                self._keep(request_bytes(method, self._url, version, self._headers, body))
        elif self._route is not None:
            head = self._parsed_head()
            self._remember(head, len(body), len(body))
            self._submit(head, body)

    def _parsed_head(self) -> RequestHead:
        parser, headers = self._parser, self._headers
        keep_alive: bool = parser.should_keep_alive()
        chunked = parser.get_http_version() != "1.0"
        if keep_alive and not chunked and any(name.lower() == b"transfer-encoding" for name, _ in headers):
            keep_alive = False  # whoever passed it on may have seen another end of it (RFC 9112, 6.1)
        return RequestHead(parser.get_method(), self._url, headers, self._route, keep_alive=keep_alive, chunked=chunked)

    def _keep(self, message: bytes) -> None:
        """For the handover: a client that never ends its bytes with a request must not fill the memory with them."""
        self._replay.append(Held.of(self.shared.service.intake, message))
        self._replay_size += len(message)
        limits = self.shared.limits
        if self._replay_size > limits.max_request_size + limits.max_header_size:
            raise Refusal(413, f"More than {limits.max_request_size} bytes of pipelined requests (max_request_size)")

    # -- requests -----------------------------------------------------------------------------------------------------

    def _submit(self, head: RequestHead, body: bytes | memoryview) -> None:
        shared, route = self.shared, head.route
        assert route is not None
        keep_alive = head.keep_alive and not shared.closing
        raw_id = shared.request_ids.raw(head.request_id)
        exchange = Exchange(self, head, raw_id, keep_alive)
        self._push(exchange)
        self._deaf = not keep_alive
        error, handle = head.error, route.handle
        if handle is None:
            assert route.tell is not None
            exchange.answer(route.tell())
            return
        if error is None:
            try:
                if shared.guard is not None:
                    shared.guard.check("inference", authorization(head.headers))
                exchange.request = head.request(raw_id, body, shared.typed_fields)
                shared.service.admit(handle, exchange)
                return
            except ServeError as bad:
                error = bad
            except Exception:  # unanswered, it would hold up its connection for ever
                log.exception("request %s could not be read", exchange.request_id)
        error = error or ServeError(INTERNAL_ERROR)
        exchange.answer(encode_error(error, shared.options, handle.key.name, route.version))

    def exchange_done(self, exchange: Exchange) -> None:
        """An answer is complete: let it and those behind it go, in order."""
        exchanges = self._exchanges
        if exchange.is_head and exchange.keep_alive and len(exchanges) == 1 and not (self.shared.closing or self._cold):
            exchanges.clear()  # what follows, for one request at a time
            self._since = exchange.log()
            if self._paused:
                self._resume()
            return
        while exchanges and exchanges[0].finished:
            head = exchanges.pop(0)
            head.flush()
            head.log()
            if not head.keep_alive:
                self._deaf = True
                if head.broken and not head.head.chunked:
                    self.transport.abort()  # a body that ends with its connection is whole unless that is reset
                else:
                    self._close()
                return
        if exchanges:
            exchanges[0].flush()
        elif not self._reading:
            self._since = self.shared.now()
            if self.shared.closing:  # the answer began before that was known, and promised to keep the connection
                self.last_call()
        self._resume()
        if self._cold:
            self._try_handover()

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
        self._parser = _SPENT
        self.shared.forget(self)
        stuffed, self._stuffed = self._stuffed, False
        self._resume()
        slow = cast(Any, self.shared.slow())
        self.transport.set_protocol(slow)
        slow.connection_made(self.transport)
        if stuffed:
            slow.pause_writing()
        slow.data_received(replay)
