"""Lines to files and to the console from a thread, so that neither a slow disk nor a full pipe holds the loop up.

Lines are written as they come, up to a rate: what a request logged is in the file by the time that its client can look.
Beyond it they gather for some milliseconds, so that a busy server does not spend its time on waking this thread.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Sequence
from typing import Protocol

log = logging.getLogger(__name__)

GAP = 0.005  # s between two writes of a busy server: 200 times a second ...
AT_ONCE = 20  # ... after so many without a pause
SLOW = 0.001  # s
FEW = 100  # lines
MAX_PENDING = 100_000  # lines, about 16 MiB; beyond it they are dropped and counted


class Target(Protocol):
    """Where bytes go."""

    name: str

    def write(self, data: bytes) -> None:
        """Write all of it. Raises OSError."""

    def close(self) -> None:
        """Write no more."""


class Stream:
    """A file descriptor as a target, such as the console's. It is duplicated, so closing it closes nothing else."""

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self._fd = os.dup(fd)

    def write(self, data: bytes) -> None:
        """See ``Target``."""
        write_all(self._fd, data)

    def close(self) -> None:
        """See ``Target``."""
        os.close(self._fd)


class Output:
    """Lines on their way to one target. ``put`` may be called from any thread; a line ends with its newline."""

    def __init__(self, target: Target, wake: threading.Event) -> None:
        self.target = target
        self.lines: list[str] = []
        self.dropped = 0  # lines lost to a full disk, or to a reader that does not read
        self._wake = wake
        self._failed = False
        self._reported = 0  # of the dropped ones
        self._slow = False  # the last write took long
        self._writing = threading.Lock()

    def put(self, line: str) -> None:
        """Note one line."""
        lines = self.lines
        if len(lines) >= MAX_PENDING:
            self.dropped += 1
            return
        lines.append(line)
        if not self._wake.is_set():  # "if it is the first" is true of neither where two threads append at once
            self._wake.set()

    def flush(self) -> None:
        """Write what has gathered, and wait until that is done."""
        with self._writing:
            started = time.monotonic()
            self._flush()
            self._slow = time.monotonic() - started > SLOW

    def flush_if_quick(self) -> None:
        """Write what has gathered, unless that may take long; for a thread that must not wait (7 us for ten lines).

        A disk that turns slow makes it wait once: from then on its lines are the writer's, until it is quick again.
        """
        if self._slow or len(self.lines) > FEW or not self._writing.acquire(blocking=False):
            return
        try:
            started = time.monotonic()
            self._flush()
            self._slow = time.monotonic() - started > SLOW
        finally:
            self._writing.release()

    def _flush(self) -> None:
        count = len(self.lines)  # appends may go on meanwhile: only what was counted is taken out
        if not count:
            return
        data = "".join(self.lines[:count]).encode("utf-8", "backslashreplace")
        del self.lines[:count]
        try:
            self.target.write(data)
            self._failed = False
            if self.dropped > self._reported:  # lines came faster than they could be written
                log.error("%s: %d lines lost so far", self.target.name, self.dropped)
                self._reported = self.dropped
        except OSError as error:
            self.dropped += count
            if not self._failed:  # once: the report is a line for a file as well
                self._failed, self._reported = True, self.dropped
                log.error("Cannot write %s: %s (%d lines lost)", self.target.name, error, self.dropped)


class LineWriter:
    """One thread for the outputs that are added to it."""

    def __init__(self, name: str) -> None:
        self._outputs: list[Output] = []
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def output(self, target: Target) -> Output:
        """A new output to ``target``, which the writer owns from now on."""
        made = Output(target, self._wake)
        self._outputs.append(made)
        return made

    def close(self, timeout: float = 2.0) -> None:
        """Write what is left, for at most ``timeout`` seconds, and close the targets. A second call does nothing."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        outputs = self._outputs
        left, before = float(AT_ONCE), time.monotonic()
        while not self._closing.is_set():
            if not _waiting(outputs):
                self._wake.wait()
            self._wake.clear()
            for output in list(outputs):
                output.flush()
            now = time.monotonic()
            left, before = min(left + (now - before) / GAP, AT_ONCE) - 1, now
            if left < 0:
                self._closing.wait(GAP)
        for output in outputs:
            output.flush()
            output.target.close()


def _waiting(outputs: Sequence[Output]) -> bool:
    return any(output.lines for output in outputs)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write ``data`` whole, waiting where the descriptor cannot take it now. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # a terminal that another program made non-blocking
            select.select([], [fd], [], 1.0)
