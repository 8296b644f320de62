"""The access log: one line per request, in mlserve's own forms.

Lines are written once per request on the hot path, so they do not go through :mod:`logging` (about 10 us each; here
1 to 2: what the requests of a batch or of a connection share is formatted once). A line is formatted on the event loop
and put in a list; a thread writes the list out, so a slow disk never holds the loop up. Formatting stays on the loop on
purpose: in the thread it would cost the same interpreter time, but take the interpreter lock from the loop for up to
5 ms at a stretch.

No more than a thousand lines wait as what they are: they are joined to a piece, in pages of its own that go back to the
system. Objects would wait in arenas of 1 MiB, and each stays while anything in it lives: after a disk that took nothing
for 0.15 s, at 45,000 lines a second, 1 MiB of them stayed, and as much where a piece was a bytes object.
"""

from __future__ import annotations

import logging
import mmap
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final, Protocol

from mlserve.log.formats import iso
from mlserve.log.writer import write_all

FLUSH_SECONDS: Final = 0.1
PIECE_LINES: Final = 1000  # about 160 KiB, that are waited for no longer than that: fewer wake-ups of the thread
PIECE_BYTES: Final = 1 << 19  # of address space; pages are memory once they are written to
MAX_PIECES: Final = 100  # about 16 MiB; beyond it lines are dropped and counted

_MS: Final = [b"%.2f" % (hundredth / 100) for hundredth in range(3000)]  # up to 30 ms by a look-up: it takes 0.5 us
_DIGITS: Final = [b"%d" % number for number in range(1000)]
_MILLIS: Final = [b"%03dZ" % number for number in range(1000)]


class Form:
    """What stands between the values of a line, and the functions that make text safe to stand there."""

    def __init__(
        self,
        start: bytes,
        origin: Callable[[str, str, str], str],  # client, method and path -> what stands between time and status
        quote: Callable[[str], str],  # of a request id
        phases: tuple[bytes, bytes, bytes, bytes, bytes, bytes],  # around the five numbers of a batch
        size: bytes,
        total: bytes,
        request_id: bytes,
        queue: bytes,
        end: bytes,  # of a line without phases
    ) -> None:
        self.start = start
        self.origin = origin
        self.quote = quote
        self._phases = phases
        self.size = size
        self.total = total
        self.request_id = request_id
        self.queue = queue
        self.end = end

    def phases(self, batch: BatchTimings) -> bytes:
        """What the lines of a batch end with."""
        transfer, preprocess, inference, postprocess, batch_size, end = self._phases
        return b"%b%b%b%b%b%b%b%b%b%b%b" % (
            transfer,
            _ms(batch.transfer),
            preprocess,
            _ms(batch.preprocess),
            inference,
            _ms(batch.inference),
            postprocess,
            _ms(batch.postprocess),
            batch_size,
            _number(batch.batch_size),
            end,
        )


class BatchTimings(Protocol):
    """Where the time of a batch went, in seconds (``mlserve.core.messages.BatchReport`` has this shape)."""

    transfer: float
    preprocess: float
    inference: float
    postprocess: float
    batch_size: int


class PhaseTimings(BatchTimings, Protocol):
    """Where a request's time went, in seconds (``mlserve.core.messages.Timings`` has this shape)."""

    queue: float


log = logging.getLogger(__name__)


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
        self._form = _JSON if format == "json" else _TEXT
        self._lines: list[bytes] = []
        self._pieces: deque[mmap.mmap] = deque()  # of lines, to be written; a piece's text ends at its position
        self._spares: list[mmap.mmap] = []  # at most one: a piece that was written, for the next lines
        self._joining = threading.Lock()
        self._second = -1
        self._second_text = b""  # what a line begins with, up to the milliseconds
        self._ended = -1.0  # when the last request ended, and what the line of each that ended then begins with
        self._stamp = b""
        self._batch: BatchTimings | None = None  # of the last request, and what the line of each of it ends with
        self._phases = self._form.end
        self._asleep = False  # the thread waits for a first line
        self._closing = False
        self._reopen = False
        self._wake = threading.Event()
        self._full = threading.Event()
        if self.enabled:
            self._fd = self._open()
            self._writer = threading.Thread(target=self._write_loop, name="access-log", daemon=True)
            self._writer.start()

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
        now = time.monotonic()
        queue = timings.queue if timings is not None else 0.0
        origin, named = self.origin(client, method, path), _bytes(self._form.quote(request_id))
        self.note(origin, status, size, now - seconds, now, named, queue, timings)

    def origin(self, client: str, method: str, path: str) -> Any:
        """What the lines of requests of one client for one URL share, for :meth:`note`."""
        return _bytes(self._form.origin(client, method, path))

    def note(
        self,
        origin: Any,
        status: int,
        size: int,
        started: float,
        ended: float,
        request_id: bytes,
        queue: float = 0.0,
        batch: BatchTimings | None = None,
    ) -> None:
        """As :meth:`line`, for the hot path: what lines share is not formatted anew for each (7.8 -> 2.5 us).

        Requests of one batch end at one moment and have the same ``batch``; their stamp and their phases are kept.
        ``request_id`` is written as it is. Times are in seconds on one clock.
        """
        lines, form = self._lines, self._form
        if ended != self._ended:
            self._ended = ended
            self._stamp = self._now()
        if batch is not self._batch:
            self._batch = batch
            self._phases = form.end if batch is None else form.phases(batch)
        if batch is None:
            label = waited = b""
        else:
            label, waited = form.queue, _ms(queue)
        known: bytes = origin
        lines.append(
            b"%b%b%b%b%b%b%b%b%b%b%b%b"
            % (
                self._stamp,
                known,
                _DIGITS[status],
                form.size,
                _number(size),
                form.total,
                _ms(ended - started),
                form.request_id,
                request_id,
                label,
                waited,
                self._phases,
            )
        )
        if self._asleep:
            self._asleep = False
            self._wake.set()
        elif len(lines) >= PIECE_LINES:
            self._join(PIECE_LINES)
            self._full.set()

    def _join(self, least: int) -> None:
        """Make a piece of the lines if there are ``least`` of them."""
        with self._joining:  # the writer takes what there is when it has waited long enough
            lines = self._lines
            count = len(lines)  # the event loop may append meanwhile: only what was counted is taken out
            if count < least:
                return
            if not self._keep(b"".join(lines[:count])):
                self.dropped += count
            del lines[:count]

    def _keep(self, text: bytes) -> bool:
        """Whether it waits to be written: not where too much does, or where the system gives no more pages."""
        if len(self._pieces) >= MAX_PIECES:
            return False
        piece = self._spares.pop() if self._spares else None  # new ones cost 80 us
        if piece is None or len(piece) < len(text):
            try:
                piece = mmap.mmap(-1, max(len(text), PIECE_BYTES), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            except OSError:
                return False
        piece.seek(0)
        piece.write(text)
        self._pieces.append(piece)
        return True

    def _now(self) -> bytes:
        millisecond = int(time.time() * 1000)
        second = millisecond // 1000
        if second != self._second:
            self._second, self._second_text = second, self._form.start + _bytes(iso(millisecond)[:-4])
        return self._second_text + _MILLIS[millisecond % 1000]

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
        self._writer.join(timeout)

    def _open(self) -> int:
        if self._target == "-":
            return os.dup(2)
        return os.open(self._target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)

    def _write_loop(self) -> None:
        pieces, wrote = self._pieces, False
        while True:
            if not (self._lines or pieces or wrote):  # it slept for nothing
                self._wake.clear()
                self._asleep = True
                if not (self._lines or pieces or self._closing):  # or one came just before
                    self._wake.wait()
                self._asleep = False
            self._full.wait(FLUSH_SECONDS)
            self._full.clear()
            closing = self._closing
            self._join(1)
            wrote = bool(pieces)
            try:
                if self._reopen:
                    self._reopen = False
                    fresh = self._open()
                    os.close(self._fd)
                    self._fd = fresh
                for _ in range(len(pieces)):  # more may come meanwhile, for ever
                    write_all(self._fd, _text_of(pieces[0]))
                    piece = pieces.popleft()
                    # Freeing a piece lets other threads run. Compiled code that sets an attribute frees what it had
                    # before, while others can still read it there, as the event loop did: no piece is an attribute.
                    if len(piece) == PIECE_BYTES and not self._spares:
                        self._spares.append(piece)
            except OSError as error:
                while pieces:
                    self.dropped += bytes(_text_of(pieces.popleft())).count(b"\n")
                log.error("Cannot write the access log %s: %s (%d lines lost)", self._target, error, self.dropped)
            if closing:
                os.close(self._fd)
                return


def _text_of(piece: mmap.mmap) -> memoryview:
    return memoryview(piece)[: piece.tell()]


def _bytes(text: str) -> bytes:
    return text.encode("ascii", "backslashreplace")


_PLAIN = re.compile(r"[!#-\[\]-~]*").fullmatch  # printable ASCII but blank, quote, backslash: half of five str calls


def safe(text: str) -> str:
    """Text that cannot break out of its field or its line: quotes, blanks, control and non-ASCII are escaped."""
    if _PLAIN(text):
        return text
    return text.encode("unicode_escape").decode("ascii").replace('"', '\\"').replace(" ", "\\x20")


def _text(client: str, method: str, path: str) -> str:
    protocol = "HTTP/2.0" if method == "gRPC" else "HTTP/1.1"
    return f' - {client} "{safe(method)} {safe(path)} {protocol}" '


def _json(client: str, method: str, path: str) -> str:
    return f'","client":{_quoted(client)},"method":{_quoted(method)},"path":{_quoted(path)},"status":'


def _ms(seconds: float) -> bytes:
    hundredths = int(seconds * 1e5 + 0.5)
    return _MS[hundredths] if 0 <= hundredths < 3000 else b"%.2f" % (hundredths / 100)


def _number(value: int) -> bytes:
    return _DIGITS[value] if value < 1000 else b"%d" % value


_TEXT = Form(
    b"",
    _text,
    lambda request_id: safe(request_id) or "-",
    (b" transfer=", b" pre=", b" infer=", b" post=", b" batch=", b"\n"),
    b" ",
    b" ",
    b" ",
    b" queue=",
    b"\n",
)
_JSON = Form(
    b'{"time":"',
    _json,
    lambda request_id: _quoted(request_id)[1:-1],
    (b',"transfer_ms":', b',"pre_ms":', b',"infer_ms":', b',"post_ms":', b',"batch":', b"}\n"),
    b',"size":',
    b',"total_ms":',
    b',"request_id":"',
    b'","queue_ms":',
    b'"}\n',
)
