"""The access log: one line per request, in mlserve's own forms.

Lines are written once per request on the hot path, so they do not go through :mod:`logging` (about 10 us each; here 2
to 4, most of it turning six numbers into digits). A line is formatted on the event loop and put in a list; a thread
writes the list out, so a slow disk never holds the loop up. Formatting stays on the loop on purpose: in the thread it
would cost the same interpreter time, but take the interpreter lock from the loop for up to 5 ms at a stretch.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from json.encoder import encode_basestring_ascii as _json_text
from typing import Protocol

from mlserve.log.formats import iso
from mlserve.log.writer import write_all

FLUSH_SECONDS = 0.1
FLUSH_LINES = 400  # about 64 KiB
MAX_PENDING_LINES = 100_000  # about 16 MiB; beyond it lines are dropped and counted

# One formatting operation per line: with separate pieces a line takes half as long again.
_TEXT = '%s - %s "%s %s %s" %d %d %.2f %s'
_TEXT_TIMED = _TEXT + " queue=%.2f transfer=%.2f pre=%.2f infer=%.2f post=%.2f batch=%d\n"
_JSON = '{"time":"%s","client":%s,"method":%s,"path":%s,"status":%d,"size":%d,"total_ms":%.2f,"request_id":%s'
_JSON_TIMED = _JSON + (',"queue_ms":%.2f,"transfer_ms":%.2f,"pre_ms":%.2f,"infer_ms":%.2f,"post_ms":%.2f,"batch":%d}\n')

log = logging.getLogger(__name__)


class PhaseTimings(Protocol):
    """Where a request's time went, in seconds (``mlserve.core.messages.Timings`` has this shape)."""

    queue: float
    transfer: float
    preprocess: float
    inference: float
    postprocess: float
    batch_size: int


class AccessLog:
    """One line per request, to standard error (``-``), a file, or nowhere (``off``).

    Call :meth:`line` from one thread (the event loop's). :meth:`close` writes what is left. A file that cannot be
    opened raises ``OSError`` at once; later write failures are reported in the log and cost lines, never requests.
    """

    every_api = False  # whether it is to have requests other than those for inference

    def __init__(self, target: str = "-", format: str = "text") -> None:
        self.enabled = target != "off"
        self.dropped = 0  # lines lost to a full disk or a blocked one
        self._target = target
        self._format = _json_line if format == "json" else _text_line
        self._lines: list[str] = []
        self._millisecond = -1
        self._stamp = ""
        self._closing = False
        self._reopen = False
        self._wake = threading.Event()
        self._full = threading.Event()
        if self.enabled:
            self._fd = self._open()
            self._thread = threading.Thread(target=self._write_loop, name="access-log", daemon=True)
            self._thread.start()

    def line(
        self,
        client: str,
        method: str,
        path: str,
        status: int,
        size: int,
        seconds: float,
        request_id: str,
        timings: PhaseTimings | None = None,
    ) -> None:
        """Note a finished request: ``size`` is the answer's body in bytes, ``seconds`` the time it took.

        ``path`` is the URL as the client sent it; it and ``request_id`` are escaped here.
        """
        if not self.enabled:
            return
        lines = self._lines
        if len(lines) >= MAX_PENDING_LINES:
            self.dropped += 1
            return
        now = int(time.time() * 1000)
        if now != self._millisecond:
            self._millisecond = now
            self._stamp = iso(now)
        lines.append(self._format(self._stamp, client, method, path, status, size, seconds, request_id, timings))
        count = len(lines)
        if count == 1:
            self._wake.set()
        elif count == FLUSH_LINES:
            self._full.set()

    def reopen(self) -> None:
        """Open the file anew before the next write, after it was renamed by a log rotation."""
        self._reopen = self._target != "-"

    def close(self, timeout: float = 5.0) -> None:
        """Write what is left, for at most ``timeout`` seconds, and close. A second call does nothing."""
        if not self.enabled:
            return
        self.enabled = False
        self._closing = True
        self._full.set()
        self._wake.set()
        self._thread.join(timeout)

    def _open(self) -> int:
        if self._target == "-":
            return os.dup(2)
        return os.open(self._target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

    def _write_loop(self) -> None:
        lines = self._lines
        while True:
            if not lines:
                self._wake.wait()
            self._wake.clear()
            self._full.wait(FLUSH_SECONDS)
            self._full.clear()
            closing = self._closing
            count = len(lines)  # appends may go on meanwhile: only what was counted is taken out
            data = "".join(lines[:count]).encode("ascii", "backslashreplace")
            del lines[:count]
            try:
                if self._reopen:
                    self._reopen = False
                    fresh = self._open()
                    os.close(self._fd)
                    self._fd = fresh
                write_all(self._fd, data)
            except OSError as error:
                self.dropped += count
                log.error("Cannot write the access log %s: %s (%d lines lost)", self._target, error, self.dropped)
            if closing:
                os.close(self._fd)
                return


_PLAIN = re.compile(r"[!#-\[\]-~]*").fullmatch  # printable ASCII but blank, quote, backslash: half of five str calls


def safe(text: str) -> str:
    """Text that cannot break out of its field or its line: quotes, blanks, control and non-ASCII are escaped."""
    if _PLAIN(text):
        return text
    return text.encode("unicode_escape").decode("ascii").replace('"', '\\"').replace(" ", "\\x20")


def _text_line(
    when: str,
    client: str,
    method: str,
    path: str,
    status: int,
    size: int,
    seconds: float,
    request_id: str,
    timings: PhaseTimings | None,
) -> str:
    protocol = "HTTP/2.0" if method == "gRPC" else "HTTP/1.1"
    head = (when, client, safe(method), safe(path), protocol, status, size, seconds * 1e3, safe(request_id) or "-")
    if timings is None:
        return _TEXT % head + "\n"
    return _TEXT_TIMED % (*head, *_numbers(timings))


def _json_line(
    when: str,
    client: str,
    method: str,
    path: str,
    status: int,
    size: int,
    seconds: float,
    request_id: str,
    timings: PhaseTimings | None,
) -> str:
    head = (
        when,
        _json_text(client),
        _json_text(method),
        _json_text(path),
        status,
        size,
        seconds * 1e3,
        _json_text(request_id),
    )
    if timings is None:
        return _JSON % head + "}\n"
    return _JSON_TIMED % (*head, *_numbers(timings))


def _numbers(t: PhaseTimings) -> tuple[float, float, float, float, float, int]:
    return t.queue * 1e3, t.transfer * 1e3, t.preprocess * 1e3, t.inference * 1e3, t.postprocess * 1e3, t.batch_size
