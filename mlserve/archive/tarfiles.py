"""The .tar.gz side of :mod:`mlserve.archive.reading`, read as one stream with bounded memory."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlserve.archive.names import NameSet, check_member_name
from mlserve.archive.reading import Budget, Limits, Member, Reader, damage_named, pieces
from mlserve.errors import ArchiveError

MAX_READ = 16 << 20  # tarfile reads a long name or a pax header in one piece, whatever size it declares
MAX_TAIL = 1 << 20  # zero blocks after the last member


class _BoundedGzip(gzip.GzipFile):
    """A gzip stream that refuses single reads no honest header needs."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_READ:
            raise ArchiveError(f"Archive has a tar header of more than {MAX_READ} bytes")
        return super().read(size)


class TarReader(Reader):
    """A gzip-compressed tar. ``members`` and ``read`` each decompress it once; ``walk`` is the way to unpack."""

    kind = "tgz"

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._members: list[Member] | None = None

    @contextmanager
    def _open(self) -> Iterator[tuple[tarfile.TarFile, _BoundedGzip]]:
        with (
            damage_named(self._path.name),
            _BoundedGzip(self._path, "rb") as stream,
            tarfile.open(fileobj=stream, mode="r:", encoding="utf-8") as tar,
        ):
            yield tar, stream

    def _entries(self, tar: tarfile.TarFile, stream: _BoundedGzip) -> Iterator[tuple[tarfile.TarInfo, str]]:
        budget, names = Budget(self._path, self._limits), NameSet(fold=False)
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # or the headers of 100,000 members stay in memory
            budget.add_entry()
            name = check_member_name(info.name)
            if not (info.isdir() or info.isreg()):
                raise ArchiveError(f"Archive member {name!r} is refused: links and special files are not allowed")
            if info.size < 0:
                raise ArchiveError(f"Archive member {name!r} has a negative size")
            budget.add_bytes(info.size)
            if info.isreg():
                if not name:
                    raise ArchiveError(f"Archive member {info.name!r} is refused: it is a file without a name")
                names.add(name)
                yield info, name
            elif name:
                names.add(name, is_dir=True)
        tail = 0
        while rest := stream.read(1 << 16):  # to the end, so that the checksum of the gzip stream is compared
            tail += len(rest)
            if tail > MAX_TAIL:
                raise ArchiveError(f"Archive {self._path.name} has data after its last member")

    def walk(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """See :class:`Reader`."""
        budget = Budget(self._path, self._limits)
        with self._open() as (tar, stream):
            for info, name in self._entries(tar, stream):
                file = tar.extractfile(info)
                assert file is not None  # a regular file has content
                with file:
                    yield Member(name, info.size), pieces(file, name, info.size, budget)

    def members(self) -> list[Member]:
        """See :class:`Reader`."""
        if self._members is None:
            with self._open() as (tar, stream):
                self._members = [Member(name, info.size) for info, name in self._entries(tar, stream)]
        return self._members

    def read(self, name: str, limit: int) -> bytes | None:
        """See :class:`Reader`."""
        for member, content in self.walk():
            if member.name == name:
                if member.size > limit:
                    raise ArchiveError(f"Archive member {name!r} is larger than {limit} bytes")
                return b"".join(content)
        return None

    def close(self) -> None:
        """Nothing stays open between calls."""
