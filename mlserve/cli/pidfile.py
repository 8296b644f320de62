"""The file by which ``stop`` and ``status`` find a running server.

It holds the process id together with the process's start time, because ids are used again: a server that was killed
leaves its file behind, and whatever has its id later must not be taken for it. Files of other users are never believed,
since the default place is a directory that everybody can write to.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from mlserve.errors import ErrorKind, ServeError
from mlserve.settings import Settings


@dataclass(frozen=True)
class ServerInfo:
    """A running server: ``started`` is the process's start in seconds since the epoch, ``addresses`` API -> URL."""

    pid: int
    started: float
    state: str = "starting"  # then "ready", then "stopping"
    inference_port: int = 0
    addresses: dict[str, str] = field(default_factory=dict)
    log_file: str = ""
    key_file: str = ""  # where callers need a token

    def process(self) -> psutil.Process | None:
        """This very process, or None if it has ended; one that has ended and was not yet reaped counts as ended."""
        try:
            process = psutil.Process(self.pid)
            # Start times are derived from clock ticks (10 ms) and the boot time, which clock corrections shift.
            same = abs(process.create_time() - self.started) < 2.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


class AlreadyRunning(ServeError):
    """Another server has this pid file."""

    kind = ErrorKind.CONFLICT


class PidFile:
    """One server's pid file. ``read`` is for anybody; the other methods are for the server itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._info: ServerInfo | None = None

    def read(self) -> ServerInfo | None:
        """The running server that the file names, or None if there is no file, or nothing behind it."""
        info = _parse(self.path)
        return info if info is not None and info.process() is not None else None

    def claim(self, *, inference_port: int = 0, log_file: str = "", key_file: str = "") -> None:
        """Write the file for this process. Raises :class:`AlreadyRunning`; takes a dead server's file over."""
        started = psutil.Process().create_time()
        info = ServerInfo(os.getpid(), started, inference_port=inference_port, log_file=log_file, key_file=key_file)
        for _ in range(3):  # between finding a stale file and replacing it, another server may have been quicker
            if self._create(info):
                self._info = info
                return
            if (other := self.read()) is not None:
                raise AlreadyRunning(
                    f"A server is running already (pid {other.pid}, pid file {self.path}): "
                    "stop it with `mlserve stop`, or give this one its own --pid-file and ports"
                )
            self.path.unlink(missing_ok=True)
        raise AlreadyRunning(f"Another server is being started with the pid file {self.path}")

    def update(self, **changes: Any) -> None:
        """Change fields of :class:`ServerInfo`. Does nothing unless the file is claimed."""
        if self._info is not None:
            self._info = replace(self._info, **changes)
            os.replace(_write_aside(self.path, self._info), self.path)

    def add_address(self, api: str, address: str) -> None:
        """Note where an API listens."""
        if self._info is not None:
            self.update(addresses={**self._info.addresses, api: address})

    def remove(self) -> None:
        """Remove the file if it is this process's."""
        if self._info is not None:
            current = _parse(self.path)
            if current is not None and current.pid == self._info.pid:
                self.path.unlink(missing_ok=True)
            self._info = None

    def _create(self, info: ServerInfo) -> bool:
        aside = _write_aside(self.path, info)
        try:
            os.link(aside, self.path)  # unlike a rename, fails when the name is taken
        except FileExistsError:
            return False
        finally:
            os.unlink(aside)
        return True


def default_path(settings: Settings, extension: str = "pid") -> Path:
    """``server.pid_file``, or the file of this user and inference port in the temporary directory.

    A server on port 0 takes any free port, so its file is told apart by its process id instead.
    """
    if settings.server.pid_file and extension == "pid":
        return Path(settings.server.pid_file)
    port = settings.server.inference_port
    name = str(port) if port else f"0-{os.getpid()}"
    return Path(tempfile.gettempdir()) / f"mlserve-{os.getuid()}-{name}.{extension}"


def find_server(settings: Settings) -> PidFile:
    """The pid file to look at: the configured one, else, if it names no live server, the only one there is.

    Raises :class:`ServeError` when several servers run and none is the configured one.
    """
    preferred = PidFile(default_path(settings))
    explicit = settings.server.pid_file or settings.sources.get("server.inference_port", "default") != "default"
    if explicit or preferred.read() is not None:
        return preferred
    pattern = f"mlserve-{os.getuid()}-*.pid"
    candidates = [PidFile(path) for path in sorted(Path(tempfile.gettempdir()).glob(pattern))]
    found = [item for item in candidates if item.read() is not None]
    if len(found) > 1:
        raise ServeError(
            "Several servers are running, choose one with --pid-file: " + ", ".join(str(i.path) for i in found)
        )
    return found[0] if found else preferred


def _write_aside(path: Path, info: ServerInfo) -> str:
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    with os.fdopen(fd, "w") as file:
        json.dump(asdict(info), file)
    return name


def _parse(path: Path) -> ServerInfo | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd) as file:
            about = os.fstat(fd)
            if about.st_uid != os.getuid() or not stat.S_ISREG(about.st_mode):
                return None
            info = ServerInfo(**json.loads(file.read(65536)))
        if isinstance(info.pid, int) and info.pid > 0 and isinstance(info.started, float | int):
            return info
    return None
