"""Read an archive without trusting it: zip, gzip-compressed tar or a directory, one interface.

``open_archive`` gives a reader whose ``members`` are checked names (relative, unique, regular files only) and whose
``stream`` never gives more bytes than :class:`Limits` allow. Links, devices, encrypted members and names that leave
the archive are refused here, so nothing above has to think of them. Errors are :class:`ArchiveError`.
"""

from __future__ import annotations

import gzip
import lzma
import os
import stat
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

from mlserve.archive.manifest import MANIFEST_DIR
from mlserve.archive.names import NameSet, check_member_name
from mlserve.errors import ArchiveError

CHUNK = 1 << 20


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


@contextmanager
def open_archive(path: Path, limits: Limits = DEFAULT_LIMITS) -> Iterator[Reader]:
    """Open ``path`` by its content, whatever it is called. Raises :class:`ArchiveError` if it is no archive."""
    reader: Reader
    try:
        if path.is_dir():
            reader = DirectoryReader(path, limits)
        elif zipfile.is_zipfile(path):
            reader = ZipReader(path, limits)
        else:
            reader = _open_tar(path, limits)
    except OSError as error:
        raise ArchiveError(f"Cannot read archive {path}: {error.strerror or error}") from None
    try:
        yield reader
    finally:
        reader.close()


def _open_tar(path: Path, limits: Limits) -> Reader:
    from mlserve.archive.tarfiles import TarReader

    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(b"PK"):
        raise ArchiveError(f"Archive {path.name} is a truncated or damaged zip file")
    if not magic.startswith(b"\x1f\x8b"):
        raise ArchiveError(f"{path.name} is not a model archive: neither a zip file (.mar) nor a .tar.gz")
    return TarReader(path, limits)


def top_directory(names: list[str]) -> str:
    """The one directory that holds everything (``resnet18/`` in a .tar.gz), ``""`` if there is none.

    An archive with nothing but ``MAR-INF/`` is a model of a built-in handler, not a directory to enter.
    """
    tops = {name.partition("/")[0] for name in names}
    if len(tops) != 1 or not all("/" in name for name in names):
        return ""
    (top,) = tops
    return "" if top == MANIFEST_DIR else f"{top}/"


class ZipReader(Reader):
    """A .mar, or any other zip file."""

    kind = "zip"

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        with damage_named(path.name):
            self._zip = zipfile.ZipFile(path)
        try:
            self._infos = self._checked(path, limits)
        except BaseException:
            self._zip.close()
            raise

    def _checked(self, path: Path, limits: Limits) -> dict[str, zipfile.ZipInfo]:
        budget, names, found = Budget(path, limits), NameSet(), {}
        for info in self._zip.infolist():
            budget.add_entry()
            check_member_name(info.orig_filename)  # zipfile cuts ``filename`` at a NUL
            name = check_member_name(info.filename)
            _check_mode(name, info.external_attr >> 16, info.is_dir())
            if info.is_dir():
                if name:
                    names.add(name, is_dir=True)
                continue
            if info.flag_bits & 0x1:
                raise ArchiveError(f"Archive member {name!r} is encrypted")
            budget.add_bytes(info.file_size)
            names.add(name)
            found[name] = info
        return found

    def members(self) -> list[Member]:
        """See :class:`Reader`."""
        return [Member(name, info.file_size, info.compress_size) for name, info in self._infos.items()]

    def walk(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """See :class:`Reader`."""
        budget = Budget(self._path, self._limits)
        for name, info in self._infos.items():
            yield Member(name, info.file_size, info.compress_size), self._stream(info, budget)

    def read(self, name: str, limit: int) -> bytes | None:
        """See :class:`Reader`."""
        info = self._infos.get(name)
        if info is None:
            return None
        if info.file_size > limit:
            raise ArchiveError(f"Archive member {name!r} is larger than {limit} bytes")
        return b"".join(self._stream(info, Budget(self._path, self._limits)))

    def _stream(self, info: zipfile.ZipInfo, budget: Budget) -> Iterator[bytes]:
        with damage_named(info.filename):
            file = self._zip.open(info)
        with file:
            yield from pieces(file, info.filename, info.file_size, budget)

    def close(self) -> None:
        """See :class:`Reader`."""
        self._zip.close()


class DirectoryReader(Reader):
    """An unpacked model (``--archive-format no-archive``). Links are followed: the operator put them there."""

    kind = "directory"

    def __init__(self, path: Path, limits: Limits) -> None:
        self._root = path
        self._limits = limits

    def members(self) -> list[Member]:
        """See :class:`Reader`."""
        found = []
        for folder, folders, files in os.walk(self._root):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for file in sorted(files):
                found.append(self._member(Path(folder, file)))
                if len(found) > self._limits.files:
                    raise ArchiveError(f"Directory {self._root} has more than {self._limits.files} files")
        return found

    def _member(self, path: Path) -> Member:
        try:
            status = path.stat()
        except OSError as error:
            raise ArchiveError(f"Cannot read {path}: {error.strerror or error}") from None
        if not stat.S_ISREG(status.st_mode):
            raise ArchiveError(f"{path} is not a regular file")
        return Member(check_member_name(path.relative_to(self._root).as_posix()), status.st_size)

    def walk(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """See :class:`Reader`."""
        for member in self.members():
            yield member, self._stream(member.name)

    def read(self, name: str, limit: int) -> bytes | None:
        """See :class:`Reader`."""
        path = self._root / name
        if not path.is_file():
            return None
        if path.stat().st_size > limit:
            raise ArchiveError(f"{path} is larger than {limit} bytes")
        return path.read_bytes()

    def _stream(self, name: str) -> Iterator[bytes]:
        with (self._root / name).open("rb") as file:
            while piece := file.read(CHUNK):
                yield piece

    def close(self) -> None:
        """See :class:`Reader`."""


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


def _check_mode(name: str, mode: int, is_dir: bool) -> None:
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFDIR if is_dir else stat.S_IFREG):
        raise ArchiveError(f"Archive member {name!r} is refused: links and special files are not allowed")
