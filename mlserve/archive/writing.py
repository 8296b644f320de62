"""The byte side of packing: three containers with fixed times, modes and owners, and the switch from a temporary name.

What differs between machines is left out: the times and modes of files, users, the name and time in the gzip header.
"""

from __future__ import annotations

import gzip
import os
import secrets
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mlserve.archive.manifest import checksums_of, read_manifest
from mlserve.archive.names import check_member_name
from mlserve.errors import ArchiveError

SUFFIXES = {"default": ".mar", "zip-store": ".mar", "tgz": ".tar.gz", "no-archive": ""}
FILE_MODE = 0o644
LEVEL = 6  # of deflate; fixed, because zlib's default may change


@dataclass(frozen=True)
class Content:
    """A member to write: ``stream`` gives exactly ``size`` bytes."""

    name: str
    size: int
    stream: Callable[[], Iterator[bytes]]


@contextmanager
def replace_with(target: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary path beside ``target``; what is made there becomes ``target``, or goes if the block fails.

    Without ``force`` a target that appeared meanwhile is an :class:`ArchiveError`.
    """
    scratch = target.parent / f".{target.name[:40]}.{secrets.token_hex(8)}.tmp"
    try:
        yield scratch
        if not force and (target.is_symlink() or target.exists()):
            raise ArchiveError(f"{target} exists already: use --force to overwrite it")
        if scratch.is_dir():
            _replace_directory(scratch, target)
        else:
            os.replace(scratch, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):
            scratch.unlink()


def _replace_directory(scratch: Path, target: Path) -> None:
    """Move the files of ``scratch`` into ``target``, over those of the same name.

    What else lies there stays: weights of many gigabytes are often put beside an unpacked model by hand. Only what an
    earlier packing had written, by its manifest, and this one has not, goes.
    """
    if not target.exists():
        os.rename(scratch, target)
        return
    new = sorted(path.relative_to(scratch) for path in scratch.rglob("*") if path.is_file())
    new.sort(key=lambda name: name.parts[0].endswith("-INF"))  # the manifest last: it tells whether the rest is whole
    old = _written_before(target)
    for name in new:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / name, target / name)
    for stale in old - {name.as_posix() for name in new}:
        if (target / stale).is_file():
            (target / stale).unlink()


def _written_before(target: Path) -> set[str]:
    try:
        return {check_member_name(name) for name in checksums_of(read_manifest(target, named=True))}
    except ArchiveError:  # somebody else's manifest
        return set()


def write_archive(scratch: Path, contents: Sequence[Content], archive_format: str, *, top: str, epoch: int) -> None:
    """Write ``contents`` in order to ``scratch``. ``top`` is the directory that a .tar.gz has around everything."""
    if archive_format == "no-archive":
        _write_directory(scratch, contents)
        return
    # Not mkstemp: its mode 0600 would stay with the archive, while this one follows the umask.
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        if archive_format == "tgz":
            _write_tar(file, contents, top, epoch)
        else:
            _write_zip(file, contents, zipfile.ZIP_STORED if archive_format == "zip-store" else None, epoch)
        file.flush()
        os.fsync(file.fileno())


def _write_zip(file: BinaryIO, contents: Sequence[Content], stored: int | None, epoch: int) -> None:
    when = time.gmtime(epoch)[:6]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:  # each file brings its own way and level
        for content in contents:
            info = zipfile.ZipInfo(content.name, when)
            info.create_system = 3  # Unix, on whatever system
            info.external_attr = (0o100000 | FILE_MODE) << 16
            info.compress_type = zipfile.ZIP_DEFLATED if stored is None else stored
            info.file_size = content.size  # tells zipfile whether 64-bit sizes are needed
            _set_level(info)
            with archive.open(info, "w") as member:
                for piece in content.stream():
                    member.write(piece)


def _set_level(info: zipfile.ZipInfo) -> None:
    """A ZipInfo has a level of its own, under a name that became public in Python 3.13."""
    setattr(info, "compress_level" if hasattr(info, "compress_level") else "_compresslevel", LEVEL)


def _write_tar(file: BinaryIO, contents: Sequence[Content], top: str, epoch: int) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for content in contents:
            info = tarfile.TarInfo(f"{top}/{content.name}")
            info.size, info.mtime, info.mode = content.size, epoch, FILE_MODE
            stream = content.stream()
            archive.addfile(info, _Readable(stream))
            for _ in stream:  # to its end, where the content is compared
                raise ArchiveError(f"{content.name} changed while it was being packed")


def _write_directory(root: Path, contents: Sequence[Content]) -> None:
    root.mkdir()
    for content in contents:
        path = root / content.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for piece in content.stream():
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())


class _Readable:
    """Just enough of a file for ``tarfile.addfile``, over pieces. The pieces raise when they are too few."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self._stream = stream
        self._piece = b""
        self._start = 0

    def read(self, size: int = -1) -> bytes:
        """Exactly ``size`` bytes while there are so many."""
        data = self._piece[self._start : self._start + size]
        self._start += len(data)
        while len(data) < size and (piece := next(self._stream, b"")):
            self._piece, self._start = piece, size - len(data)
            data += piece[: self._start]
        return data


def _sync(directory: Path) -> None:
    """Make the rename survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
