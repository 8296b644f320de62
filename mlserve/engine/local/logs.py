"""What workers print, and what they log, on its way to the server's log.

Both pipes are read without blocking and without a thread; a line that is too long is cut, so a handler that prints a
tensor costs memory once and not for as long as the worker lives. The last lines stay with the worker for ``describe``.

Passing a line on takes the event loop 30 us, so a worker that prints without end would take all of it: other models'
requests then took 200 ms. Beyond ``LINES_PER_SECOND`` lines are counted instead.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from time import monotonic

from mlserve.wire.payload import LogRecordMeta

log = logging.getLogger("mlserve.worker")

MAX_LINE = 8 << 10
KEPT_LINES = 50
LINES_PER_SECOND = 1000  # of one worker
_READ = 64 << 10
_LAST_READS = 64  # after the worker's end: 4 MiB at most, or a child of its could keep us reading for ever


class WorkerLog:
    """The relay and the last lines of one worker; outlives the worker's restarts."""

    def __init__(self, model: str, worker_id: int) -> None:
        self.tail: deque[str] = deque(maxlen=KEPT_LINES)
        self._of_process = 0  # lines of the present process
        self._model = model
        self._worker_id = worker_id
        self._prefix = f"{model} {worker_id}"
        self._second = 0.0  # when the present second began
        self._passed = 0  # lines passed on in it
        self._left_out = 0

    def begin(self) -> None:
        """Another process follows."""
        self._of_process = 0

    def present(self) -> list[str]:
        """Those of the last lines that the present process wrote."""
        return list(self.tail)[max(0, len(self.tail) - self._of_process) :]

    def line(self, level: int, text: str, stream: str = "stdout", source: str = "") -> None:
        """Keep one line and pass it on at ``level``, unless there are too many. ``source`` is put in front of it."""
        self.tail.append(source + text)
        self._of_process += 1
        if not log.isEnabledFor(level):
            return
        if self._passed >= LINES_PER_SECOND:
            if monotonic() - self._second < 1.0:
                self._left_out += 1
                return
            left_out, self._passed, self._left_out = self._left_out, 0, 0
            if left_out:
                self._pass(logging.WARNING, f"({left_out} lines left out: more than {LINES_PER_SECOND} in a second)")
        if not self._passed:
            self._second = monotonic()
        self._passed += 1
        self._pass(level, text, stream, source)

    def _pass(self, level: int, text: str, stream: str = "stdout", source: str = "") -> None:
        extra = {"model": self._model, "worker": self._worker_id, "stream": stream}
        log.log(level, "%s | %s%s", self._prefix, source, text, extra=extra)

    def record(self, record: LogRecordMeta) -> None:
        """Keep and pass on a record of the worker's ``logging``."""
        for text in record.message.splitlines() or [""]:
            source = "" if record.logger in ("root", log.name) else f"{record.logger}: "
            self.line(record.level, text[:MAX_LINE], source=source)


class SpareLog(WorkerLog):
    """Of a process that is no worker yet: its lines are of interest only to those who debug."""

    def __init__(self) -> None:
        super().__init__("spare", 0)

    def line(self, level: int, text: str, stream: str = "stdout", source: str = "") -> None:
        """See :class:`WorkerLog`."""
        super().line(logging.DEBUG, text, stream, source)


class PipeReader:
    """Reads one pipe of a worker and cuts it into lines. Owns ``fd``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, level: int, sink: WorkerLog) -> None:
        self._loop = loop
        self._fd = fd
        self._level = level
        self._sink = sink
        self._partial = b""
        self._skipping = False
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._readable)

    def redirect(self, sink: WorkerLog) -> None:
        """Send the lines to come to ``sink``."""
        self._sink = sink

    def close(self) -> None:
        """Take what is still in the pipe, then close it."""
        if self._fd < 0:
            return
        for _ in range(_LAST_READS):
            if not self._read():
                break
        self._finish()

    def _readable(self) -> None:
        if self._read() == b"":
            self._finish()

    def _read(self) -> bytes | None:
        """One piece of the pipe; empty at its end, None when there is nothing now."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        self._cut(data)
        return data

    def _cut(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            if self._skipping:  # the end of a line whose beginning was passed on
                self._skipping = False
                continue
            self._emit(line)
        if len(self._partial) > MAX_LINE:
            if not self._skipping:
                self._emit(self._partial)
            self._skipping = True
            self._partial = b""

    def _emit(self, line: bytes) -> None:
        text = line[:MAX_LINE].decode("utf-8", "replace").rstrip("\r")
        if len(line) > MAX_LINE:
            text += " ... (line cut)"
        self._sink.line(self._level, text, "stdout" if self._level == logging.INFO else "stderr")

    def _finish(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        if self._partial and not self._skipping:
            self._emit(self._partial)
        self._partial = b""
