"""A log file that is begun anew each day and at 100 MB; the old ones are compressed and the newest five kept.

Names and numbers are TorchServe's: ``ts_log.log``, then ``ts_log.21-Nov.log.gz``. What it does not have is a name for
the second file of one day (it overwrites the first); here it is ``ts_log.21-Nov.2.log.gz``.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import threading
import time
from pathlib import Path

from mlserve.log.writer import write_all

MAX_SIZE = 100 << 20  # bytes
KEPT = 5


class RollingFile:
    """See ``writer.Target``. Raises OSError at once when the file cannot be opened for appending.

    ``mode``: permissions of new files, less what the umask takes.
    """

    def __init__(self, path: Path, max_size: int = MAX_SIZE, kept: int = KEPT, mode: int = 0o640) -> None:
        self.name = str(path)
        self._path = path
        self._max_size = max_size
        self._kept = kept
        self._mode = mode
        self._packing: threading.Thread | None = None
        self._open()

    def write(self, data: bytes) -> None:
        """See ``writer.Target``."""
        if self._size and (self._size + len(data) > self._max_size or _day(time.time()) != self._day):
            self.roll()
        write_all(self._fd, data)
        self._size += len(data)

    def close(self) -> None:
        """See ``writer.Target``. Waits for a compression that is under way."""
        os.close(self._fd)
        if self._packing is not None:
            self._packing.join()

    def roll(self) -> None:
        """Begin a new file. A disk that does not let the old one be renamed costs the rolling, not the lines."""
        aside = self._free_name()
        with contextlib.suppress(OSError):
            self._path.rename(aside)
            self._pack(aside)
        os.close(self._fd)
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, self._mode)
        status = os.fstat(self._fd)
        self._size = status.st_size
        self._day = _day(status.st_mtime if status.st_size else time.time())

    def _free_name(self) -> Path:
        stem = f"{self._path.stem}.{self._day}"
        number, name = 1, f"{stem}{self._path.suffix}"
        while (self._path.with_name(name)).exists() or self._path.with_name(name + ".gz").exists():
            number += 1
            name = f"{stem}.{number}{self._path.suffix}"
        return self._path.with_name(name)

    def _pack(self, aside: Path) -> None:
        """Compress in a thread of its own: 100 MB take seconds, in which lines go on being written."""
        if self._packing is not None:
            self._packing.join()
        self._packing = threading.Thread(target=self._compress, args=(aside,), name="log-compress", daemon=True)
        self._packing.start()

    def _compress(self, aside: Path) -> None:
        packed = aside.with_name(aside.name + ".gz")
        with contextlib.suppress(OSError):  # it stays as it is, uncompressed
            fd = os.open(packed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, self._mode)
            with (
                open(fd, "wb") as raw,
                gzip.GzipFile(aside.name, "wb", compresslevel=6, fileobj=raw) as target,
                aside.open("rb") as source,
            ):
                shutil.copyfileobj(source, target, 1 << 20)
            aside.unlink()
        pattern = f"{self._path.stem}.*{self._path.suffix}.gz"
        old = sorted(self._path.parent.glob(pattern), key=lambda path: path.stat().st_mtime)
        for path in old[: -self._kept]:
            with contextlib.suppress(OSError):
                path.unlink()


def _day(seconds: float) -> str:
    """``21-Nov``, in local time."""
    return time.strftime("%d-%b", time.localtime(seconds))
