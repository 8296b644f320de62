"""Which reader a model file gets: by its content, whatever it is called."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlserve.archive.folders import DirectoryReader
from mlserve.archive.manifest import MANIFEST_DIR
from mlserve.archive.reading import DEFAULT_LIMITS, Limits, Reader
from mlserve.archive.tarfiles import TarReader
from mlserve.archive.zipfiles import ZipReader
from mlserve.errors import ArchiveError


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
