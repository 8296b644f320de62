"""Reading a model that lies unpacked in a directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mlserve.archive.names import check_member_name
from mlserve.archive.reading import CHUNK, Limits, Member, Reader
from mlserve.errors import ArchiveError


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
