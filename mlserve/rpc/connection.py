"""One HTTP/2 connection of a gRPC client: frames to streams, windows, and the ways it ends (RFC 9113).

Written here and not taken from a library because of what it costs: the package ``h2`` takes 380 to 500 us per unary
call, ``grpc.aio`` 310 to 430 with an empty handler, this 30 (docs/performance.md). Of the package ``hpack`` it has the
decoder of headers.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from mlserve.rpc import control, frames
from mlserve.rpc.codes import Code
from mlserve.rpc.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEAD_SIZE,
    MAX_FRAME,
    MAX_WINDOW,
    ConnectionFault,
    Error,
)
from mlserve.rpc.heads import HARD, Head, Heads
from mlserve.rpc.shared import DEFAULT_WINDOW, MAX_STREAMS, ROOM, Shared
from mlserve.rpc.stream import LARGE, Refused, Stream, method_of

log = logging.getLogger(__name__)

UNSENT = 1 << 20  # bytes that the transport keeps before it says that the client does not read
APART = 4 << 10  # bytes of a frame that is not copied out of what came with it


class Connection(asyncio.Protocol):
    """``window`` is what we may send on all streams, ``initial_window`` what on a new one; ``stuffed`` means that the
    client does not read what is written. ``blocked`` are the streams that have room of their own, so that what a client
    says about the connection costs no more than what it lets out."""

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_stream",
        "_greeted",
        "_heads",
        "_rest",
        "_unanswered",
        "blocked",
        "client",
        "initial_window",
        "last",
        "leaving",
        "max_frame",
        "resized",
        "seen",
        "shared",
        "since",
        "streams",
        "stuffed",
        "timer",
        "transport",
        "window",
    )

    transport: asyncio.Transport
    client: str

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.streams: dict[int, Stream] = {}
        self.blocked: dict[int, Stream] = {}
        self.window = self.initial_window = DEFAULT_WINDOW
        self.max_frame = MAX_FRAME
        self.resized = 0.0  # when the client has earned the changes of its windows that it made
        self.stuffed = False
        self._heads = Heads(shared.methods, shared.max_headers)
        self._greeted = False
        self._rest = b""
        self.last = 0  # highest number of a stream
        self.leaving = False  # streams beyond the last are not served any more
        self._unanswered = 0  # bytes that came and that the client has got no new room for
        self._block = bytearray()  # headers that go on in the next frame
        self._block_stream = self._block_flags = 0
        self.timer: asyncio.TimerHandle | None = None  # of the greeting, then of its age
        self.seen: object = None  # what it was owed when last looked at, and since when
        self.since = 0.0

    # -- transport ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=UNSENT)
        peer = transport.get_extra_info("peername")
        self.client = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unix"
        secure = transport.get_extra_info("ssl_object")
        shared = self.shared
        shared.connections.add(self)
        shared.empty.clear()
        if secure is not None and secure.selected_alpn_protocol() != "h2":
            self.transport.abort()
            return
        self.timer = asyncio.get_running_loop().call_later(shared.patience, self.transport.abort)
        self.transport.write(shared.greeting)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: nobody waits for what it asked."""
        if self.timer is not None:
            self.timer.cancel()
        for stream in list(self.streams.values()):
            stream.drop()
        shared = self.shared
        shared.connections.discard(self)
        if not shared.connections:
            shared.empty.set()

    def pause_writing(self) -> None:
        """The client does not read: take nothing more from it."""
        self.stuffed = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has read."""
        self.stuffed = False
        if not self.transport.is_closing():
            self.transport.resume_reading()
        self.pump()

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def write_lines(self, lines: list[bytes | memoryview]) -> None:
        """Send pieces."""
        if not self.transport.is_closing():
            self.transport.writelines(lines)

    def owed(self) -> object:
        """What the client has to take, or the beginning of what it has to send, before this goes on."""
        if self.stuffed or self.transport.is_closing():
            return self.transport.get_write_buffer_size()
        return (self._rest, len(self._block)) if self._rest or self._block_stream else None

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        try:
            if not self._greeted:
                data = self._greet(self._rest + data)
                if not data:
                    return
            position = self._complete(data) if self._rest else 0
            end = len(data)
            view = memoryview(data) if end > LARGE else data
            while end - position >= HEAD_SIZE:
                high, low, kind, flags, number = HEAD.unpack_from(data, position)
                start = position + HEAD_SIZE
                length = high << 8 | low
                if length > MAX_FRAME:
                    raise _too_long(length)
                after = start + length
                if after > end:
                    break
                position = after
                if kind == DATA:
                    # A small view would keep all that came with it.
                    payload = view[start:after] if length > APART else data[start:after]
                    self._on_data(flags, number & MAX_WINDOW, payload)
                else:
                    self._frame(kind, flags, number & MAX_WINDOW, data[start:after])
            if position < end:
                self._rest = data[position:]
        except ConnectionFault as fault:
            self._fail(fault)
        except Exception:
            log.exception("a gRPC connection failed")
            self._fail(ConnectionFault(Error.INTERNAL_ERROR, "internal error"))

    def _complete(self, data: bytes) -> int:
        """Serve the frame that began in the bytes before; where the next one begins. The rest is not copied again."""
        rest = self._rest
        position = max(0, HEAD_SIZE - len(rest))
        rest += data[:position]
        if len(rest) >= HEAD_SIZE:
            high, low, kind, flags, number = HEAD.unpack_from(rest)
            length = high << 8 | low
            if length > MAX_FRAME:
                raise _too_long(length)
            missing = HEAD_SIZE + length - len(rest)
            rest += data[position : position + missing]
            position += missing
            if position <= len(data):
                self._rest = b""
                self._frame(kind, flags, number & MAX_WINDOW, rest[HEAD_SIZE:])
                return int(position)
        self._rest = rest
        return len(data)

    def _greet(self, data: bytes) -> bytes:
        """What follows the preface, once that is there."""
        preface, self._rest = frames.PREFACE, b""
        if not data.startswith(preface[: len(data)]):
            raise ConnectionFault(Error.PROTOCOL_ERROR, "this port speaks gRPC")
        if len(data) < len(preface):
            self._rest = data
            return b""
        self._greeted = True
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.shared.on_open(self) if self.shared.on_open is not None else None
        return data[len(preface) :]

    # -- frames -------------------------------------------------------------------------------------------------------

    def _frame(self, kind: int, flags: int, number: int, payload: Any) -> None:
        if self._block_stream and kind != frames.CONTINUATION:
            raise ConnectionFault(Error.PROTOCOL_ERROR, "a frame between the frames of a header block")
        if kind == frames.HEADERS:
            if not number & 1:
                raise ConnectionFault(Error.PROTOCOL_ERROR, "HEADERS of a stream that is not the client's")
            if flags & (frames.PADDED | frames.HAS_PRIORITY):
                payload = frames.unpadded(flags, payload)
            if flags & END_HEADERS:
                self._on_headers(number, flags, payload)
            else:
                self._block, self._block_stream, self._block_flags = bytearray(payload), number, flags
        elif kind == DATA:
            self._on_data(flags, number, payload)
        elif kind == frames.CONTINUATION:
            self._on_continuation(flags, number, payload)
        else:
            handle = control.FRAMES.get(kind)
            if handle is not None:  # others are to be ignored
                handle(self, flags, number, payload)

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if not self._block_stream or number != self._block_stream:
            raise ConnectionFault(Error.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._block += payload
        if len(self._block) > HARD * self.shared.max_headers or not payload:
            raise ConnectionFault(Error.ENHANCE_YOUR_CALM, "too many headers")
        if flags & END_HEADERS:
            block, begun = bytes(self._block), self._block_flags
            self._block, self._block_stream = bytearray(), 0
            self._on_headers(number, begun, block)

    def _on_headers(self, number: int, flags: int, block: bytes) -> None:
        if number <= self.last:
            self._heads.skip(block)
            stream = self.streams.get(number)
            if stream is not None:  # trailers, of which gRPC's clients send none
                if stream.half_closed or not flags & END_STREAM:
                    raise ConnectionFault(Error.PROTOCOL_ERROR, "HEADERS within a stream")
                self._close_half(stream)
            return
        head = self._heads(block)
        if self.leaving or len(self.streams) >= MAX_STREAMS:
            self.last = number if not self.leaving else self.last
            self.write(frames.reset(number, Error.REFUSED_STREAM))
            return
        self.last = number
        stream = Stream(self, number, head)
        if head.malformed or head.status != 200:
            self._turn_away(stream, head)
            return
        self.streams[number] = stream
        try:
            method = method_of(stream)
            if method.client_streaming:
                method.open(stream)
        except Refused as refused:
            stream.half_closed = bool(flags & END_STREAM)
            stream.finish(refused.code, refused.message)
            return
        if flags & END_STREAM:
            self._close_half(stream)

    def _turn_away(self, stream: Stream, head: Head) -> None:
        """What is no gRPC call has no gRPC status."""
        if head.malformed:
            self.write(frames.reset(stream.id, Error.PROTOCOL_ERROR))
            return
        self.write(frames.headers_frame(stream.id, frames.literal(b":status", b"%d" % head.status), end=True))
        self.write(frames.reset(stream.id, Error.NO_ERROR))

    def _on_data(self, flags: int, number: int, payload: Any) -> None:
        size = len(payload)
        if self._block_stream:
            raise ConnectionFault(Error.PROTOCOL_ERROR, "a frame between the frames of a header block")
        self._unanswered += size
        if self._unanswered > ROOM // 2:
            self.write(frames.window_update(0, self._unanswered))
            self._unanswered = 0
        stream = self.streams.get(number)
        if stream is None:
            if (number > self.last and not self.leaving) or not number:
                raise ConnectionFault(Error.PROTOCOL_ERROR, "DATA of a stream that was not begun")
            return  # it is over here, which the client may not know yet
        if stream.half_closed:
            self.end_stream(stream, Error.STREAM_CLOSED)
            return
        if flags & frames.PADDED:
            payload = frames.unpadded(frames.PADDED, payload)
        try:
            stream.feed(payload, size)
        except Refused as refused:
            stream.half_closed = bool(flags & END_STREAM)
            stream.refuse(refused)
            return
        if flags & END_STREAM and not stream.over:
            self._close_half(stream)

    def _close_half(self, stream: Stream) -> None:
        try:
            stream.close_half()
            method: Any = stream.head.method
            if not method.client_streaming:
                if stream.message is None:
                    raise Refused(Code.INTERNAL, "The call ended without a request")
                method.serve(stream, stream.message)
        except Refused as refused:
            stream.refuse(refused)

    # -- endings ------------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Let streams that wait for room on the connection go on, each in its turn, as far as there is some."""
        blocked = self.blocked
        while blocked and self.window > 0 and not self.stuffed:
            stream = next(iter(blocked.values()))
            del blocked[stream.id]
            stream.pump()

    def end_stream(self, stream: Stream, error: Error) -> None:
        """Reset a stream."""
        self.write(frames.reset(stream.id, error))
        stream.drop()

    def forget(self, stream: Stream) -> None:
        """A stream is over."""
        self.blocked.pop(stream.id, None)
        self.streams.pop(stream.id, None)
        if self.leaving and not self.streams:
            self.transport.close()

    def _fail(self, fault: ConnectionFault) -> None:
        log.debug("%s: %s", self.client, fault.message)
        self.write(frames.go_away(self.last, fault.error, fault.message))
        self._rest = b""
        self.transport.close()

    def announce(self) -> None:
        """Tell the client to begin no more calls here; those that are on their way are served."""
        self.write(frames.go_away(MAX_WINDOW))

    def leave(self) -> None:
        """Serve what has begun, and no more; then close."""
        if self.leaving:
            return
        self.leaving = True
        self.write(frames.go_away(self.last))
        if not self.streams:
            self.transport.close()

    def cut(self) -> None:
        """End the connection now."""
        self.transport.abort()


def _too_long(length: int) -> ConnectionFault:
    return ConnectionFault(Error.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
