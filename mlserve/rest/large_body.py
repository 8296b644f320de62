"""The rest of a large body, read by the kernel to where it stays: in the memory where the workers find it.

Through the parser a body of 1 MiB is copied three times before anybody looks at it: out of the event loop's buffer, out
of the parser, and into one piece; a fourth time for the worker. Once its head has been read, the connection's transport
is lent to a protocol that gives out its own memory to be written to, for exactly as many bytes as are missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlserve.rest.fast import FastLane

LARGE = 64 << 10  # bytes; below it, changing the protocol costs as much as it saves
AHEAD = 16  # times the bytes that have come: a client that only announces a body must not take memory
_SPARED = 4  # a quarter of the workers' memory is for bodies that are copied there when they are sent


class LargeBody(asyncio.BufferedProtocol):
    """Reads ``length`` bytes, of which ``pieces`` are there already, and hands them and the transport to ``lane``.

    Where the workers' memory has no room, they go into a buffer that grows.
    """

    __slots__ = ("_buffer", "_filled", "_lane", "_length")

    def __init__(self, lane: FastLane, length: int, pieces: Sequence[bytes | memoryview]) -> None:
        self._lane = lane
        self._length = length
        self._filled = sum(map(len, pieces))
        bodies = lane.shared.bodies
        lent = bodies.lend(length, bodies.size // _SPARED) if bodies is not None else None
        self._buffer = lent if lent is not None else memoryview(bytearray(self._room()))
        position = 0
        for piece in pieces:
            self._buffer[position : position + len(piece)] = piece
            position += len(piece)

    def _room(self) -> int:
        return min(self._length, AHEAD * self._filled + LARGE)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        if self._filled == len(self._buffer):
            more = memoryview(bytearray(self._room()))
            more[: self._filled] = self._buffer
            self._buffer = more
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
        self._filled += nbytes
        lane = self._lane
        if self._filled == self._length or not lane.body_goes_on():
            lane.transport.set_protocol(lane)
            lane.body_read(self._buffer[: self._filled])

    def eof_received(self) -> bool | None:
        """The client sends nothing more."""
        return self._lane.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._lane.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._lane.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._lane.resume_writing()
