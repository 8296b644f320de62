"""Reading a .mar, or any other zip file."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mlserve.archive.names import NameSet, check_member_name
from mlserve.archive.reading import Budget, Limits, Member, Reader, damage_named, pieces
from mlserve.errors import ArchiveError


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
        budget, names, found = Budget(path, limits), NameSet(fold=False), {}
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


def _check_mode(name: str, mode: int, is_dir: bool) -> None:
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFDIR if is_dir else stat.S_IFREG):
        raise ArchiveError(f"Archive member {name!r} is refused: links and special files are not allowed")
