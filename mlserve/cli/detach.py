"""Putting a server in the background, and still telling whether it came up.

The background process is a fresh ``mlserve start`` in a session of its own (a fork would take the parent's threads and
state along). It reports its start through a pipe, one JSON line per progress event, which the foreground process plays
to its own view; the end of the pipe without "ready" means that the start failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mlserve.cli.console import LogProgress
from mlserve.cli.ending import held
from mlserve.errors import ServeError

TAIL_LINES = 20
ENDING = 120.0  # seconds for a server to end, before it is killed


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
    """A server that is started in the background. ``exit_code`` is None once it is ready, else ``failure`` says why."""

    def __init__(
        self, arguments: Sequence[str], log_file: Path, progress: LogProgress, environ: Mapping[str, str] = {}
    ) -> None:
        self._arguments = arguments
        self._environ = environ
        self._log_file = log_file
        self._progress = progress
        self._child: subprocess.Popen[bytes] | None = None
        self.pid = -1
        self.exit_code: int | None = None
        self.failure = ""

    def start(self) -> None:
        """Return when it is ready or has failed. Raises ``OSError`` when the log file cannot be written."""
        log_fd = os.open(self._log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        size = os.fstat(log_fd).st_size
        read_fd, write_fd = os.pipe()
        # -P keeps the working directory off the import path, where any file called like a module would be taken for it.
        python = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
        command = [*python, "-m", "mlserve", "start", f"--events-fd={write_fd}", f"--log-file={self._log_file}"]
        with os.fdopen(read_fd) as lines:
            with held():  # a child that nobody knows of could not be ended
                try:
                    child = self._child = subprocess.Popen(
                        [*command, *self._arguments],
                        env={**os.environ, **self._environ},
                        stdin=subprocess.DEVNULL,
                        stdout=log_fd,
                        stderr=log_fd,
                        pass_fds=(write_fd,),
                        start_new_session=True,
                    )
                finally:
                    os.close(log_fd)
                    os.close(write_fd)
            self.pid = child.pid
            if replay(lines, self._progress):
                return
        self.exit_code = child.wait()
        self.failure = _tail(self._log_file, size)

    def end(self) -> None:
        """Have it end, with its workers, and wait for that; signals wait too."""
        with held():
            if self._child is None or self._child.poll() is not None:
                return
            self._child.terminate()
            try:
                self._child.wait(ENDING)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def let_go(self) -> None:
        """It is meant to outlive us: no warning about a child that still runs."""
        if self._child is not None and self._child.returncode is None:
            self._child.returncode = 0


def start_in_background(arguments: Sequence[str], log_file: Path, progress: LogProgress) -> Background:
    """Run ``mlserve start`` with ``arguments`` in the background and return when it is ready or has failed.

    Its output is appended to ``log_file``. An interrupt while it starts ends it. Raises ``OSError`` when the log file
    cannot be written.
    """
    server = Background(arguments, log_file, progress)
    try:
        server.start()
    except BaseException:
        server.end()
        raise
    server.let_go()
    return server


@contextlib.contextmanager
def own_server(
    arguments: Sequence[str], log_file: Path, progress: LogProgress, environ: Mapping[str, str]
) -> Iterator[Background]:
    """The same, for as long as the block lasts, however it ends. ``environ`` is added to this process's."""
    server = Background(arguments, log_file, progress, environ)
    try:
        server.start()
        yield server
    finally:
        server.end()


def _tail(path: Path, start: int) -> str:
    """The last lines that were appended to ``path`` after ``start``."""
    with path.open("rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - 65536))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-TAIL_LINES:])
