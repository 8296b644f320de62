"""Shared memory for large payloads: a sealed memfd, mapped by both processes, with an allocator on the owner's side.

A payload in the arena crosses no socket: one copy in, one copy out, or none out where the reader takes a view. One way,
socket against view against copy-out: 150 KiB 18/9/12 us, 588 KiB 54/18/44 us, 1 MiB 139/47/107 us; so it pays from
about 256 KiB (:data:`ARENA_FROM`). When the arena is full the payload goes through the socket as small ones do.

The memfd is sealed against resizing before it is shared, so neither side can make the other's mapping fault (SIGBUS).
Blocks begin at multiples of 64 bytes: a cache line, and enough for any SIMD load from a view.
"""

from __future__ import annotations

import mmap
import os
import sys
from bisect import bisect_left
from contextlib import suppress

if sys.platform == "linux":
    import fcntl

ARENA_FROM = 256 << 10
ALIGNMENT = 64


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
        self._map = mmap.mmap(fd, size)
        self._view = memoryview(self._map)
        self._free: list[tuple[int, int]] = [(0, size)]  # (offset, length) by offset; neighbours never touch
        self._used: dict[int, int] = {}

    @classmethod
    def create(cls, size: int) -> Arena | None:
        """A new arena of ``size`` bytes (rounded up to whole pages), or None where the system has no memfd.

        Pages cost memory only once they are written. Pass ``fd`` and ``size`` to the peer.
        """
        if sys.platform != "linux":
            return None
        if size <= 0:
            raise ArenaError(f"an arena needs a positive size, got {size}")
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        fd = os.memfd_create("mlserve-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            return cls(fd, size, owner=True)
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
