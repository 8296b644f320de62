"""Shared memory for large payloads: a sealed memfd, mapped by both processes, with an allocator on the owner's side.

A payload in the arena crosses no socket: at most one copy in and one out, and none where it is read into the arena and
looked at there. Through the socket a batch of 1.2 MB needs six rounds between the processes, and a worker whose model
keeps the interpreter's lock reads none of it meanwhile. From :data:`ARENA_FROM` on that is worth the bookkeeping. When
the arena is full the payload goes through the socket as small ones do.

The memfd is sealed against resizing before it is shared, so neither side can make the other's mapping fault (SIGBUS);
where only the server writes, no worker can map it for writing.
Blocks begin at multiples of 64 bytes: a cache line, and enough for any SIMD load from a view.
"""

from __future__ import annotations

import mmap
import os
import sys
from bisect import bisect_left
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

if sys.platform == "linux":
    import fcntl

ARENA_FROM = 64 << 10
ALIGNMENT = 64
_FUTURE_WRITE = 0x0010  # F_SEAL_FUTURE_WRITE of Linux 5.1, which Python's fcntl has not


class ArenaError(ValueError):
    """An arena that is not what was announced, or an offset and length outside of it."""


class Arena:
    """A mapped arena. The owner allocates and frees; the peer only takes views at offsets it was told.

    Not thread-safe: callers that allocate and free from several threads hold a lock of their own.
    """

    def __init__(self, fd: int, size: int, owner: bool) -> None:
        self.fd = fd
        self.size = size
        self._owner = owner
        self._map = mmap.mmap(fd, size, access=mmap.ACCESS_WRITE if owner else mmap.ACCESS_READ)
        self._view = memoryview(self._map)
        self._free: list[tuple[int, int]] = [(0, size)]  # (offset, length) by offset; neighbours never touch
        self._used: dict[int, int] = {}

    @classmethod
    def create(cls, size: int, *, read_only: bool = False) -> Self | None:
        """A new arena of ``size`` bytes (rounded up to whole pages), or None where the system has no memfd.

        Pages cost memory only once they are written. Pass ``fd`` and ``size`` to the peer; ``read_only``: nobody else
        can map it for writing, as far as the kernel knows how to hold that.
        """
        if sys.platform != "linux":
            return None
        if size <= 0:
            raise ArenaError(f"an arena needs a positive size, got {size}")
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        fd = os.memfd_create("mlserve-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            arena = cls(fd, size, owner=True)
            if read_only:
                with suppress(OSError):
                    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _FUTURE_WRITE)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
            return arena
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int, size: int, *, owner: bool = False) -> Arena:
        """Map an arena that the other process created; takes over ``fd``.

        ``owner`` is for the arena in which this side allocates. Raises :class:`ArenaError` if ``fd`` is no sealed memfd
        of ``size`` bytes.
        """
        if sys.platform != "linux":
            raise ArenaError("arenas need Linux")
        actual = os.fstat(fd).st_size
        if actual != size or size <= 0:
            raise ArenaError(f"the arena has {actual} bytes, {size} were announced")
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError as error:
            raise ArenaError(f"file descriptor {fd} is no memfd: {error}") from None
        if not (seals & fcntl.F_SEAL_SHRINK and seals & fcntl.F_SEAL_GROW):
            raise ArenaError("the arena is not sealed against resizing")
        return cls(fd, size, owner)

    @property
    def free_blocks(self) -> list[tuple[int, int]]:
        """(offset, length) of the free blocks, by offset."""
        return list(self._free)

    def alloc(self, length: int) -> int | None:
        """Reserve ``length`` bytes and return their offset, or None when no free block is large enough."""
        if not self._owner:
            raise ArenaError("only the owner of an arena allocates in it")
        if length < 0:
            raise ArenaError(f"cannot allocate {length} bytes")
        need = max(ALIGNMENT, -(-length // ALIGNMENT) * ALIGNMENT)
        for position, (offset, room) in enumerate(self._free):
            if room >= need:
                if room == need:
                    del self._free[position]
                else:
                    self._free[position] = (offset + need, room - need)
                self._used[offset] = need
                return offset
        return None

    def free(self, offset: int) -> None:
        """Give back what :meth:`alloc` returned. Raises :class:`ArenaError` if it is not allocated."""
        length = self._used.pop(offset, None)
        if length is None:
            raise ArenaError(f"nothing is allocated at offset {offset}")
        blocks = self._free
        position = bisect_left(blocks, (offset, 0))
        if position < len(blocks) and offset + length == blocks[position][0]:
            length += blocks.pop(position)[1]
        if position and sum(blocks[position - 1]) == offset:
            offset, before = blocks[position - 1]
            blocks[position - 1] = (offset, before + length)
        else:
            blocks.insert(position, (offset, length))

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Copy ``data`` to ``offset``. Raises :class:`ArenaError` if it would not fit there."""
        self.view(offset, len(data))[:] = data

    def view(self, offset: int, length: int) -> memoryview:
        """The bytes at ``offset``, uncopied; valid until the owner frees the block.

        Raises :class:`ArenaError` if they are not all inside the arena.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ArenaError(f"{length} bytes at offset {offset} are outside of the arena of {self.size} bytes")
        return self._view[offset : offset + length]

    def close(self) -> None:
        """Let go of the memory and the file descriptor. Views that are still held keep the mapping alive."""
        self._view.release()
        with suppress(BufferError):  # somebody holds a view; the mapping goes with it
            self._map.close()
        os.close(self.fd)
