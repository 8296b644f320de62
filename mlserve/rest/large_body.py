"""The rest of a large body, read by the kernel to where it stays: in the memory where the workers find it.

Through the parser a body of 1 MiB is copied three times before anybody looks at it: out of the event loop's buffer, out
of the parser, and into one piece; a fourth time for the worker. Once its head has been read, the connection's transport
is lent to a protocol that gives out its own memory to be written to, for exactly as many bytes as are missing. Behind
two large requests of one length there mostly comes another, which is read to its place head and all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlserve.core.intake import Held, Intake, IntakeFull
from mlserve.rest.lane import Refusal
from mlserve.wire.arena import ALIGNMENT

if TYPE_CHECKING:
    from mlserve.rest.fast import FastLane
    from mlserve.rest.request_head import RequestHead

LARGE = 64 << 10  # bytes; below it, changing the protocol costs as much as it saves
AHEAD = 16  # times the bytes that have come: a client that only announces a body must not take memory
_SPARED = 4  # a quarter of the workers' memory is for bodies that are copied there when they are sent
_NOTHING = memoryview(b"")


def read_on(
    lane: FastLane, length: int, pieces: Sequence[bytes | Held | memoryview], place: memoryview | None = None
) -> None:
    """Read the rest of a large body of ``lane``, see ``LargeBody``; or refuse it, where too much is held already."""
    try:
        lane.transport.set_protocol(LargeBody(lane, length, pieces, place))
    except IntakeFull as full:
        lane.refuse(Refusal(503, full.message))


def gather(intake: Intake, pieces: list[bytes | Held]) -> None:
    """Make one of the pieces of a body that turned out to be large: the last one has just come. Raises IntakeFull."""
    first, *others = pieces
    pieces.clear()  # of a request that is refused nothing stays while its client reads why
    held = first if isinstance(first, Held) else Held.of(intake, first)
    for piece in others:
        held.more(piece)
    pieces.append(held)


def whole(pieces: list[bytes | Held]) -> bytes | memoryview:
    """The body that the parser found."""
    first = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return first if isinstance(first, bytes) else memoryview(first)


class _Lent(asyncio.BufferedProtocol):
    """Has the transport of ``lane``, which is told everything but what is read.

    uvloop's transport keeps the methods of the last buffered protocol it had, and so the protocol, for as long as the
    connection lives: whoever is done lets go of what it has, of memory and of the lane.
    """

    __slots__ = ("_lane",)

    def __init__(self, lane: FastLane) -> None:
        self._lane = lane

    def _lend(self, length: int) -> memoryview | None:
        bodies = self._lane.shared.bodies
        return bodies.lend(length, bodies.size // _SPARED) if bodies is not None else None

    def eof_received(self) -> bool | None:
        """The client sends nothing more."""
        return self._lane.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        lane = self._lane
        del self._lane
        lane.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._lane.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._lane.resume_writing()


class LargeBody(_Lent):
    """Reads ``length`` bytes, of which ``pieces`` are there already, and hands them and the transport to ``lane``.

    Where the workers' memory has no room, they go into a buffer that grows. ``place``: the one piece lies at the
    beginning of that memory, where the others are to come. Raises ``IntakeFull``.
    """

    __slots__ = ("_buffer", "_filled", "_length")

    def __init__(
        self, lane: FastLane, length: int, pieces: Sequence[bytes | Held | memoryview], place: memoryview | None = None
    ) -> None:
        super().__init__(lane)
        self._length = length
        self._filled = sum(map(len, pieces))
        if place is not None:
            self._buffer = place
            return
        lent = self._lend(length)
        self._buffer = lent if lent is not None else self._take()
        position = 0
        for piece in pieces:
            self._buffer[position : position + len(piece)] = piece
            position += len(piece)

    def _take(self) -> memoryview:
        room = min(self._length, AHEAD * self._filled + LARGE)
        return memoryview(Held(self._lane.shared.service.intake, room))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
        self._filled += nbytes
        lane = self._lane
        if self._filled == len(self._buffer) < self._length:
            try:
                more = self._take()
                more[: self._filled] = self._buffer
                self._buffer = more
            except IntakeFull as full:
                lane.refuse(Refusal(503, full.message))
        if self._filled == self._length or not lane.body_goes_on():
            body, self._buffer = self._buffer[: self._filled], _NOTHING
            del self._lane
            lane.transport.set_protocol(lane)
            lane.body_read(body)

    def connection_lost(self, exc: Exception | None) -> None:
        """See above."""
        self._buffer = _NOTHING
        super().connection_lost(exc)


class LikeBefore(_Lent):
    """Reads what comes next on a connection whose last request was ``known``, to where its body would stay.

    Memory is taken when there is something to read, and one byte more than such a request has: the event loop looks for
    more where a buffer was filled.
    """

    __slots__ = ("_at", "_buffer", "_length")

    def __init__(self, lane: FastLane, known: RequestHead) -> None:
        super().__init__(lane)
        self._at, self._length = known.measure
        self._buffer: memoryview | None = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: the body would begin at a multiple of 64, as arrays like to."""
        if self._buffer is None:
            before = -self._at % ALIGNMENT
            lent = self._lend(before + self._length + 1)
            self._buffer = lent[before:] if lent is not None else memoryview(bytearray(LARGE))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
        buffer, self._buffer = self._buffer, None
        assert buffer is not None
        lane = self._lane
        if not lane.like_before(buffer, nbytes):
            del self._lane
            lane.transport.set_protocol(lane)
            lane.data_received(bytes(buffer[:nbytes]))
