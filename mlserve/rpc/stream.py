"""One call on an HTTP/2 connection: messages out of what comes, and messages sent as far as the client has room.

A message is framed by five bytes: a flag that says whether it is compressed, and its length
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from mlserve.core.intake import Held, IntakeFull
from mlserve.rpc import frames
from mlserve.rpc.codes import Code
from mlserve.rpc.frames import END_HEADERS, END_STREAM, HEADERS, MAX_FRAME, Error, frame_head, literal
from mlserve.rpc.heads import Head

if TYPE_CHECKING:
    from mlserve.rpc.connection import Connection

WINDOW = 4 << 20  # bytes that a client may send on a stream before it is told to go on
HELD = 1 << 20  # bytes of messages that nobody has taken yet; beyond them a stream's client waits
EACH = 64  # bytes that a message counts beside its own: also of empty ones there may not be any number
BEHIND = 64 << 10  # bytes that wait for the client; beyond them a stream's handler waits
LARGE = 64 << 10  # bytes from which on a view is cheaper than a copy

_OPEN = b"\x88" + literal(b"content-type", b"application/grpc")  # 0x88 is ":status: 200"
_OPEN += literal(b"grpc-accept-encoding", b"identity, deflate, gzip")
_GOOD = literal(b"grpc-status", b"0")
_HEADERS = frame_head(HEADERS, END_HEADERS, 0, len(_OPEN))[:5]
_TRAILERS = frame_head(HEADERS, END_HEADERS | END_STREAM, 0, len(_GOOD))[:5]
_WBITS = {"gzip": 31, "deflate": 15}

Bytes = bytes | memoryview


class Owner(Protocol):
    """Who serves a call."""

    def gone(self) -> None:
        """The client waits for it no more."""


class Refused(Exception):
    """A call that cannot be served as it comes."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Stream:
    """``owner`` is told when the client gives up. ``messages`` are those of a client that streams, as they came."""

    __slots__ = (
        "_data",
        "_end",
        "_held",
        "_known",
        "_lead",
        "_out",
        "_room",
        "_size",
        "_unanswered",
        "_wanted",
        "behind",
        "connection",
        "half_closed",
        "head",
        "id",
        "message",
        "messages",
        "over",
        "owner",
        "seen",
        "since",
        "wake",
        "window",
    )

    def __init__(self, connection: Connection, number: int, head: Head) -> None:
        self.connection = connection
        self.id = number
        self.head = head
        self.owner: Owner | None = None
        self.window = connection.initial_window  # bytes that we may send
        self.half_closed = False  # the client has said all
        self.over = False
        self.message: Bytes | None = None  # of a client that sends one
        self.messages: deque[Bytes] | None = None
        self.wake: asyncio.Future[None] | None = None  # of whoever waits for a message
        self._data: Bytes | Held = b""  # of the next message, as far as it has come
        self._size = 0
        self._known = False  # its length
        self._wanted = 5
        self._unanswered = 0  # bytes that came and that the client has got no new room for
        self._held = 0  # bytes of messages
        self._out: deque[Bytes] | None = None
        self.behind = 0  # bytes of them
        self._lead = b""  # the first headers, until they are sent
        self._end: bytes | None = None  # the trailers
        self._room: asyncio.Future[None] | None = None  # of whoever waits for the client to read
        self.seen: int | None = None  # bytes of a request that were there when last looked at, and since when
        self.since = 0.0

    # -- what comes ---------------------------------------------------------------------------------------------------

    def feed(self, piece: Bytes, counted: int) -> None:
        """Bytes of messages; ``counted`` of the window, with padding. Raises ``Refused``."""
        self._unanswered += counted
        if self._unanswered > WINDOW:
            self.connection.end_stream(self, Error.FLOW_CONTROL_ERROR)
            return
        if not self._size:
            if self.message is None and self.messages is None and len(piece) > 5 and not piece[0]:
                length = int.from_bytes(piece[1:5], "big")
                if length == len(piece) - 5 <= self.connection.shared.max_receive:  # all of it, as in most calls
                    self.message = bytes(piece[5:])
                    return
            self._data = piece
        else:  # not a list of pieces: a client may send a byte at a time
            self._data = self._hold(piece, self._data)
        self._size += len(piece)
        while self._size >= self._wanted:
            self._advance()
        if self._unanswered > WINDOW // 2 and not self.half_closed:
            self._make_room()

    def _hold(self, data: Bytes, before: Bytes | Held = b"") -> Held:
        """``data`` behind what was there before. Raises ``Refused``."""
        try:
            held = before if isinstance(before, Held) else Held.of(self.connection.shared.intake, before)
            held.more(data)
            return held
        except IntakeFull as full:
            raise Refused(Code.RESOURCE_EXHAUSTED, full.message) from None

    def _advance(self) -> None:
        """The length of a message is there, or all of it."""
        data, end = self._data, self._wanted
        if not self._known:
            self._known = True
            length = int.from_bytes(data[1:5], "big")
            limit = self.connection.shared.max_receive
            if length > limit:
                raise Refused(Code.RESOURCE_EXHAUSTED, f"Received message larger than max ({length} vs. {limit})")
            self._wanted = 5 + length
            return
        packed = data[0]
        message: Bytes = memoryview(data)[5:end] if end > LARGE else bytes(data[5:end])
        self._size -= end
        self._data = bytes(data[end:]) if self._size else b""
        self._known, self._wanted = False, 5
        self._take(self._unpacked(message) if packed else message)

    def _take(self, message: Bytes) -> None:
        if self.messages is not None:
            size = len(message) + EACH
            self._count(size)
            self.messages.append(message)
            self._held += size
            self._wake()
        elif self.message is not None:
            raise Refused(Code.UNIMPLEMENTED, "More than one request in a call that takes one")
        else:
            self.message = message

    def _count(self, size: int) -> None:
        """A message that waits to be taken counts, a large one twice. Raises ``Refused``."""
        try:
            self.connection.shared.intake.take(size)
        except IntakeFull as full:
            raise Refused(Code.RESOURCE_EXHAUSTED, full.message) from None

    def _unpacked(self, message: Bytes) -> Bytes:
        if not self.head.encoding:
            raise Refused(Code.INTERNAL, "Compressed flag set with identity or empty encoding")
        limit = self.connection.shared.max_receive
        unpacking = zlib.decompressobj(_WBITS[self.head.encoding])
        try:
            data = unpacking.decompress(message, limit + 1)
        except zlib.error as error:
            raise Refused(Code.INTERNAL, f"The message is no {self.head.encoding}: {error}") from None
        if len(data) > limit:
            raise Refused(Code.RESOURCE_EXHAUSTED, f"Received message larger than max (over {limit} decompressed)")
        if not unpacking.eof:
            raise Refused(Code.INTERNAL, f"The message is no {self.head.encoding}: it is cut off")
        return data if len(data) <= LARGE else memoryview(self._hold(data))

    def _make_room(self) -> None:
        """Tell the client to go on, unless what it sent has not been taken: then that makes room."""
        if self._held <= HELD:
            self.connection.write(frames.window_update(self.id, self._unanswered))
            self._unanswered = 0

    def stream_messages(self) -> None:
        """Keep messages for :meth:`take`: there may be any number of them."""
        self.messages = deque()

    def take(self) -> Bytes | None:
        """The next message of a client that streams; None while there is none."""
        if not self.messages:
            return None
        message = self.messages.popleft()
        size = len(message) + EACH
        self._held -= size
        self.connection.shared.intake.give(size)
        if self._unanswered > WINDOW // 2 and not (self.half_closed or self.over):
            self._make_room()
        return message

    def owed(self) -> int | None:
        """Bytes that there are of a request whose rest is the client's to send, or, below zero, of a single answer that
        it is to take; None if it need not do anything. Of several answers it may take the next when it likes."""
        method: Any = self.head.method
        if self._end is not None and self._out and not method.server_streaming:
            return -self.behind
        if self.half_closed or self.over or (self.messages is not None and (not self._size or self._held > HELD)):
            return None
        return self._size

    def close_half(self) -> None:
        """The client has said all. Raises ``Refused``."""
        self.half_closed = True
        self._wake()
        if self._size:
            raise Refused(Code.INTERNAL, "The call ended within a message")

    def _wake(self) -> None:
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)

    # -- what is sent -------------------------------------------------------------------------------------------------

    def answer(self, message: Bytes, before: bytes = b"") -> None:
        """The one message of a successful call, and its end. ``before`` belongs to the message."""
        connection, length = self.connection, len(before) + len(message)
        if self.over:
            return
        size = length + 5
        if size > MAX_FRAME or size > self.window or size > connection.window or connection.stuffed:
            self._queue(message, before)
            self.finish()
            return
        connection.window -= size
        number = self.id.to_bytes(4, "big")
        view: Any = message  # which "%b" takes as well
        connection.write(
            b"%b%b%b%b\x00\x00%b\x00%b%b%b%b%b%b"
            % (
                _HEADERS,
                number,
                _OPEN,
                size.to_bytes(3, "big"),
                number,
                length.to_bytes(4, "big"),
                before,
                view,
                _TRAILERS,
                number,
                _GOOD,
            )
        )
        self._ended()

    def send(self, message: Bytes, before: bytes = b"") -> None:
        """One of several messages."""
        if not self.over:
            self._queue(message, before)
            self.pump()

    def _queue(self, message: Bytes, before: bytes) -> None:
        out = self._out
        if out is None:
            out = self._out = deque()
            self._lead = frames.headers_frame(self.id, _OPEN, end=False)
        prefix = b"\x00" + (len(before) + len(message)).to_bytes(4, "big") + before
        out.append(prefix)
        if message:
            out.append(message)
        self.behind += len(prefix) + len(message)

    def finish(self, code: int = 0, message: str = "") -> None:
        """The status, behind what is sent."""
        if self.over or self._end is not None:
            return
        block = literal(b"grpc-status", b"%d" % code) if code else _GOOD
        if message:
            block += literal(b"grpc-message", quote(message, safe=_PLAIN).encode("ascii"))
        self._end = _OPEN + block if self._out is None else block
        self.pump()

    def refuse(self, refused: Refused) -> None:
        """End a call that cannot be served any further."""
        owner, self.owner = self.owner, None
        self.finish(refused.code, refused.message)
        if owner is not None:
            owner.gone()

    def pump(self) -> None:
        """Send as much as the windows and the transport take."""
        connection, out = self.connection, self._out
        lines: list[Bytes] = [self._lead] if self._lead else []
        self._lead = b""
        while out:
            room = min(self.window, connection.window, connection.max_frame)
            if room <= 0 or connection.stuffed:
                if self.window > 0:
                    connection.blocked[self.id] = self
                break
            lines += self._cut(out, room)
        if not out:
            connection.blocked.pop(self.id, None)
            if self._end is not None:
                lines.append(frames.headers_frame(self.id, self._end, end=True))
        if lines:
            connection.write_lines(lines)
        if not out and self._end is not None:
            self._ended()
        if self._room is not None and self.behind <= BEHIND and not self._room.done():
            self._room.set_result(None)

    def _cut(self, out: deque[Bytes], room: int) -> list[Bytes]:
        """A DATA frame of at most ``room`` bytes of payload."""
        pieces: list[Bytes] = []
        size = 0
        while out and size < room:
            piece = out[0]
            if len(piece) <= room - size:
                out.popleft()
            else:
                view = memoryview(piece)
                piece, out[0] = view[: room - size], view[room - size :]
            pieces.append(piece)
            size += len(piece)
        self.window -= size
        self.connection.window -= size
        self.behind -= size
        return [frame_head(frames.DATA, 0, self.id, size), *pieces]

    async def drain(self) -> None:
        """Wait until the client has taken most of what is sent."""
        while self.behind > BEHIND and not self.over:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _ended(self) -> None:
        """The last frame is written."""
        if not self.half_closed:  # what else it sends is not wanted
            self.connection.write(frames.reset(self.id, Error.NO_ERROR))
        self.owner = None
        self.drop()

    def drop(self) -> None:
        """The stream is over, however it ended."""
        self.over = True
        self._out = self.messages = self.message = None
        self._data = b""
        if self._held:
            self.connection.shared.intake.give(self._held)
        self._held = self.behind = 0
        self.connection.forget(self)
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._wake()
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.gone()


_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def method_of(stream: Stream) -> Any:
    """What serves the call. Raises ``Refused``."""
    head = stream.head
    if head.excess:
        raise Refused(Code.RESOURCE_EXHAUSTED, head.excess)
    if head.method is None:
        raise Refused(Code.UNIMPLEMENTED, "Method not found!")
    if head.encoding is None:
        raise Refused(Code.UNIMPLEMENTED, "The message encoding is none of identity, deflate, gzip")
    if head.timeout < 0:
        raise Refused(Code.INTERNAL, "Malformed grpc-timeout")  # as gRPC for Go says; not a call without a deadline
    return head.method
