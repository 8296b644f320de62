"""Putting a server in the background, and still telling whether it came up.

The background process is a fresh ``mlserve start`` in a session of its own (a fork would take the parent's threads and
state along). It reports its start through a pipe, one JSON line per progress event, which the foreground process plays
to its own view; the end of the pipe without "ready" means that the start failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from mlserve.cli.console import LogProgress
from mlserve.errors import ServeError

TAIL_LINES = 20


class PipeProgress(LogProgress):
    """In the background process: passes every event on through the pipe, besides logging it."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        os.set_inheritable(fd, False)  # workers must not hold the pipe open
        self._pipe: IO[str] | None = os.fdopen(fd, "w")

    def model_loading(self, name: str) -> None:
        """Pass it on."""
        super().model_loading(name)
        self._send("model_loading", name)

    def worker_ready(self, model: str, ready: int, wanted: int) -> None:
        """Pass it on."""
        super().worker_ready(model, ready, wanted)
        self._send("worker_ready", model, ready, wanted)

    def model_ready(self, name: str, seconds: float) -> None:
        """Pass it on."""
        super().model_ready(name, seconds)
        self._send("model_ready", name, seconds)

    def model_failed(self, name: str, error: ServeError) -> None:
        """Pass it on, with the traceback."""
        super().model_failed(name, error)
        self._send("model_failed", name, error.message, error.detail)

    def listening(self, what: str, address: str) -> None:
        """Pass it on."""
        super().listening(what, address)
        self._send("listening", what, address)

    def ready(self, seconds: float) -> None:
        """Pass it on; nobody listens after that."""
        super().ready(seconds)
        self._send("ready", seconds)
        self.close()

    def close(self) -> None:
        """Close the pipe."""
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _send(self, event: str, *values: Any) -> None:
        if self._pipe is None:
            return
        try:
            self._pipe.write(json.dumps([event, *values]) + "\n")
            self._pipe.flush()
        except BrokenPipeError:  # the foreground process was ended; the server goes on without it
            self.close()


def replay(lines: IO[str], progress: LogProgress) -> bool:
    """Play the events of ``lines`` to ``progress``; True as soon as the server is ready, False if they end before."""
    for line in lines:
        event, *values = json.loads(line)
        if event == "model_failed":
            name, message, detail = values
            progress.model_failed(name, ServeError(message, detail=detail))
        else:
            getattr(progress, event)(*values)
        if event == "ready":
            return True
    return False


class Background:
    """A server that was started in the background. ``failure`` is empty once it is ready."""

    def __init__(self, pid: int, exit_code: int | None, failure: str) -> None:
        self.pid = pid
        self.exit_code = exit_code
        self.failure = failure


def start_in_background(arguments: Sequence[str], log_file: Path, progress: LogProgress) -> Background:
    """Run ``mlserve start`` with ``arguments`` in the background and return when it is ready or has failed.

    Its output is appended to ``log_file``. An interrupt while it starts ends it. Raises ``OSError`` when the log file
    cannot be written.
    """
    log_fd = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    size = os.fstat(log_fd).st_size
    read_fd, write_fd = os.pipe()
    # -P keeps the working directory off the import path, where any file called like a module would be taken for it.
    python = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    command = [*python, "-m", "mlserve", "start", f"--events-fd={write_fd}", f"--log-file={log_file}", *arguments]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            pass_fds=(write_fd,),
            start_new_session=True,
        )
    finally:
        os.close(log_fd)
        os.close(write_fd)
    with os.fdopen(read_fd) as lines:
        try:
            if replay(lines, progress):
                child.returncode = 0  # it is meant to outlive us: no warning about a child that still runs
                return Background(child.pid, None, "")
        except KeyboardInterrupt:
            child.send_signal(signal.SIGTERM)
            child.wait()
            raise
    code = child.wait()
    return Background(child.pid, code, _tail(log_file, size))


def _tail(path: Path, start: int) -> str:
    """The last lines that were appended to ``path`` after ``start``."""
    with path.open("rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - 65536))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-TAIL_LINES:])
