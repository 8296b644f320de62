"""Which names a member of an archive may have. One rule for packing and for reading, checked at the lowest layer.

A name is a relative path with ``/`` between its parts that stays inside the directory it is unpacked to on every
system: case-insensitive file systems and drive letters count although the server runs on Linux, because archives
travel.
"""

from __future__ import annotations

import re
import unicodedata

from mlserve.errors import ArchiveError

MAX_PART_BYTES = 255  # NAME_MAX of the common file systems
MAX_NAME_BYTES = 2048
_DRIVE = re.compile(r"[A-Za-z]:")


def check_member_name(name: str) -> str:
    """Return ``name`` without ``./`` and trailing ``/``; ``""`` for the top directory itself.

    Raises :class:`ArchiveError` for a name that is absolute, leaves the archive, has a backslash, a drive letter or
    a control character, is too long, or has an empty part.
    """

    def refuse(why: str) -> ArchiveError:
        return ArchiveError(f"Archive member {name[:120]!r} is refused: {why}")

    if not name:
        raise refuse("its name is empty")
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in name):
        raise refuse("its name has control characters or is not valid UTF-8")
    if "\\" in name:
        raise refuse("its name has a backslash")
    if name.startswith("/"):
        raise refuse("its path is absolute")
    if _DRIVE.match(name):
        raise refuse("its path starts with a drive letter")
    parts = name.removesuffix("/").split("/")
    if ".." in parts:
        raise refuse("its path leaves the archive")
    if "" in parts:
        raise refuse("its path has an empty part")
    parts = [part for part in parts if part != "."]
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts) or len(name.encode()) > MAX_NAME_BYTES:
        raise refuse(f"its path is longer than {MAX_NAME_BYTES} bytes, or a part of it than {MAX_PART_BYTES}")
    return "/".join(parts)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


class NameSet:
    """The names seen so far; refuses one that would land on another, with ``fold`` also where case does not count.

    Archives are written with ``fold`` and read without: other tools write such names, and Linux keeps them apart.
    """

    def __init__(self, *, fold: bool) -> None:
        self._fold = _folded if fold else str
        self._seen: dict[str, tuple[str, bool]] = {}  # folded name -> (as written, is a directory)

    def add(self, name: str, *, is_dir: bool = False) -> None:
        """Add a checked name and its parents. Raises :class:`ArchiveError` on a collision; directories may repeat."""
        parts = name.split("/")
        for end in range(1, len(parts)):
            self._add("/".join(parts[:end]), True)
        self._add(name, is_dir)

    def _add(self, name: str, is_dir: bool) -> None:
        folded = self._fold(name)
        if folded not in self._seen:
            self._seen[folded] = (name, is_dir)
            return
        known, known_dir = self._seen[folded]
        if known != name:
            raise ArchiveError(f"Archive members {known!r} and {name!r} differ only in case or accents")
        if not (is_dir and known_dir):
            raise ArchiveError(f"Archive member {name!r} is there twice, or as a file and as a directory")
