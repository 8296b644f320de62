r"""What every reader of an archive keeps to, so that nothing above has to trust one.

A :class:`Reader` gives ``members`` with checked names (relative, unique, regular files only) and ``walk``\ s their
content in pieces that never come to more bytes than :class:`Limits` allow. Links, devices, encrypted members and names
that leave the archive are refused by it. Errors are :class:`ArchiveError`.
"""

from __future__ import annotations

import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from mlserve.errors import ArchiveError

CHUNK = 1 << 17  # bytes; with a MiB the thread that unpacks leaves 4 MiB in the server's heap, and is slower


class Limits(NamedTuple):
    """What an archive may hold. The ratio counts only above ``ratio_from`` bytes: weights full of zeros are honest."""

    files: int = 100_000
    total_bytes: int = 1 << 40
    ratio: float = 200.0  # unpacked size / archive size; deflate itself reaches 1030
    ratio_from: int = 4 << 30


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """A regular file of an archive. Sizes in bytes; ``compressed`` is ``None`` where members share a stream."""

    name: str
    size: int
    compressed: int | None = None


class Budget:
    """Counts files and bytes against the limits while an archive is read."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        self._limits = limits
        self._packed = max(1, archive.stat().st_size)
        self._files = 0
        self._bytes = 0

    def add_entry(self) -> None:
        """One more member, of whatever kind."""
        self._files += 1
        if self._files > self._limits.files:
            raise ArchiveError(f"Archive has more than {self._limits.files} members")

    def add_bytes(self, count: int) -> None:
        """``count`` more unpacked bytes, declared or read."""
        self._bytes += count
        if self._bytes > self._limits.total_bytes:
            raise ArchiveError(f"Archive unpacks to more than {self._limits.total_bytes} bytes")
        if self._bytes > self._limits.ratio_from and self._bytes > self._packed * self._limits.ratio:
            raise ArchiveError(
                f"Archive unpacks to more than {self._limits.ratio:g} times its own size of {self._packed} bytes"
            )


class Reader(ABC):
    """An open archive. ``kind`` is ``zip``, ``tgz`` or ``directory``."""

    kind: str

    @abstractmethod
    def walk(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Every member with its content in pieces, in archive order; a content must be read before the next member."""

    @abstractmethod
    def members(self) -> list[Member]:
        """Every member, in archive order. Names are as stored: see :func:`top_directory`."""

    @abstractmethod
    def read(self, name: str, limit: int) -> bytes | None:
        """The content of one small member, ``None`` if it is not there. More than ``limit`` bytes are an error."""

    @abstractmethod
    def close(self) -> None:
        """Close the files."""


def pieces(file: IO[bytes], name: str, size: int, budget: Budget) -> Iterator[bytes]:
    """Read a member to its end. Raises :class:`ArchiveError` if it is damaged or not ``size`` bytes long."""
    done = 0
    while True:
        with damage_named(name):
            piece = file.read(CHUNK)
        if not piece:
            break
        done += len(piece)
        budget.add_bytes(len(piece))
        yield piece
    if done != size:
        raise ArchiveError(f"Archive member {name!r} is truncated: {done} of {size} bytes")


@contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Turn what the zip, gzip and tar modules raise on damaged data into one error that names the place."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise ArchiveError(f"Archive is damaged or truncated at {name!r}: {error}") from None
    except (ValueError, OverflowError, struct.error, IndexError, RuntimeError, OSError) as error:
        # Ill-formed headers reach far: an offset before the start of the file ends as EINVAL.
        raise ArchiveError(f"Archive cannot be read at {name!r}: {error}") from None
