"""The server's side of an arena: memory that is free again when nobody has a view of it any more.

A body is read from its client to where the worker finds it, and an answer is written to its client from where the
worker put it, each without a copy in between. How long the memory is needed then depends on others: a batch sent
again, a client that reads slowly. Views know: the block that they look at ends with the last of them, which is noted.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable

from mlserve.wire.arena import Arena, ArenaError

_STEP = 64 << 10  # blocks that are lent are multiples of it: ctypes makes a type for each length


class LendingArena(Arena):
    """An arena whose blocks are lent as views. For one thread, but views may end in any."""

    def __init__(self, fd: int, size: int, owner: bool) -> None:
        super().__init__(fd, size, owner)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._closed = False
        self._leases: dict[int, weakref.ref[object]] = {}
        self._ended: list[int] = []  # offsets that are to be freed: a view may end in the middle of alloc()

    def lend(self, length: int, spare: int = 0) -> memoryview | None:
        """``length`` bytes of its own, or None when there is no room, or less than ``spare`` bytes would be left."""
        ended = self._ended
        while ended:
            self.free(ended.pop())
        room = max(_STEP, -(-length // _STEP) * _STEP)
        if self._closed or (spare and sum(free for _, free in self._free) < room + spare):
            return None
        offset = self.alloc(room)
        if offset is None:
            return None
        return self.lease(offset, length, lambda: ended.append(offset))

    def lease(self, offset: int, length: int, ended: Callable[[], object]) -> memoryview:
        """As :meth:`view`; ``ended`` is called when no view of it is left, by whoever had the last one.

        Raises :class:`ArenaError` if the bytes are not all inside the arena.
        """
        if offset < 0 or length < 1 or offset + length > self.size:
            raise ArenaError(f"{length} bytes at offset {offset} are outside of the arena of {self.size} bytes")
        room = min(-(-length // _STEP) * _STEP, self.size - offset)
        block = (ctypes.c_char * room).from_buffer(self._map, offset)
        leases = self._leases

        def end(lease: object) -> None:
            if leases.get(offset) is lease:
                del leases[offset]
            ended()

        leases[offset] = weakref.ref(block, end)
        return memoryview(block).cast("B")[:length]

    def offset_of(self, data: object) -> int | None:
        """Where ``data`` lies, if it is a view (not an empty one) that was lent here."""
        if type(data) is not memoryview or not isinstance(data.obj, ctypes.Array):
            return None
        offset = ctypes.addressof(ctypes.c_char.from_buffer(data)) - self._base
        return offset if 0 <= offset < self.size else None

    def close(self) -> None:
        """See :meth:`Arena.close`. Nothing is lent any more."""
        if not self._closed:
            self._closed = True
            super().close()
