"""Unpack an archive: all of it, checked, or nothing.

Everything goes into a temporary directory beside the target, which is renamed at the end and removed on any failure.
Files get mode 0644 whatever the archive says, so no set-uid or executable bit survives.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path

from mlserve.archive.manifest import checksums_of, read_manifest
from mlserve.archive.opening import open_archive, top_directory
from mlserve.archive.reading import DEFAULT_LIMITS, Limits, Reader
from mlserve.errors import ArchiveError, ErrorKind, ServeError


def unpack(path: str | os.PathLike[str], directory: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Path:
    """Unpack an archive into ``directory``, which must be missing or empty, and return it.

    A single top directory (as in a .tar.gz) is left out. Checksums of the manifest are compared on the way. Raises
    :class:`ArchiveError` for an archive that is damaged, dangerous or over ``limits``; then nothing is left behind.
    A full disk and the like raise ``ServeError``.
    """
    source, target = Path(path), Path(directory)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ArchiveError(f"Directory {target} is not empty: unpack into a new one")
    with open_archive(source, limits) as reader:
        if reader.kind == "directory":
            raise ArchiveError(f"{source} is a directory: there is nothing to unpack")
        parent = target.absolute().parent
        scratch = parent / f".{target.name[:40]}.{secrets.token_hex(8)}.tmp"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            scratch.mkdir()
            hashes = _write_all(reader, scratch)
            content = scratch / top_directory(list(hashes))
            _compare(content, scratch, hashes)
            _give_way(target)
            os.rename(content, target)
        except OSError as error:
            raise ServeError(
                f"Cannot unpack {source.name} into {parent}: {error.strerror or error}", kind=ErrorKind.INTERNAL
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def _give_way(target: Path) -> None:
    """An empty target gives way, so that rename never meets what somebody put there meanwhile."""
    if target.exists():
        target.rmdir()


def _write_all(reader: Reader, root: Path) -> dict[str, str]:
    """Write every member below ``root``; returns name -> SHA-256 in hex."""
    hashes: dict[str, str] = {}
    for member, content in reader.walk():
        path = root / member.name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        # Exclusive and without following links: a name seen twice or planted between is an error, never a write.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(handle, "wb") as file:
            for piece in content:
                digest.update(piece)
                file.write(piece)
        hashes[member.name] = digest.hexdigest()
    return hashes


def _compare(content: Path, scratch: Path, hashes: dict[str, str]) -> None:
    """Compare the files with the manifest's checksums. Members that the manifest doesn't list are let through:
    people add an ``index_to_name.json`` with ``zip -u``; ``verify`` names them."""
    prefix = content.relative_to(scratch).as_posix()
    for name, expected in checksums_of(read_manifest(content, named=True)).items():
        found = hashes.get(name if prefix == "." else f"{prefix}/{name}")
        if found is None:
            raise ArchiveError(f"Archive member {name!r} is missing, although the manifest lists it")
        if found != expected:
            raise ArchiveError(f"Archive member {name!r} is damaged: its SHA-256 is not the manifest's")
