"""The worker's two threads.

The main thread runs the handler, because handlers may use what only works there (``signal``), and while it has nothing
to compute it takes frames off the socket itself: a batch that another thread receives costs three ``futex`` calls, two
changes of thread and fights for the interpreter's lock. The reader's thread receives first, while the handler loads,
and then whenever a batch takes longer than a :data:`TICK`, or is so large that the next one is to come meanwhile: it
answers PING, notes cancels and sees the end of the server. Batches that others take (``ahead``, ``crew``, ``steps``,
``tasks``) it receives all the time. What is not a batch ends the loop.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import Final

import msgspec

from mlserve.wire.frames import Frame, FrameError, FrameReader, Kind, encode_meta
from mlserve.wire.payload import (
    EXIT_DEVICE_LOST,
    EXIT_PROTOCOL_ERROR,
    SAYS,
    CancelMeta,
    ResultMeta,
)
from mlserve.worker.link import Buffer, Link
from mlserve.worker.replies import Replies
from mlserve.worker.runner import Runner, Work

ASKED: Final = 0  # an exit code; the others are the wire's
EOF_GRACE: Final = 2.0  # seconds that a running handler gets after the server is gone
RECEIVE: Final = 64 << 10  # bytes
TICK: Final = 0.01  # seconds that a batch may be computed before the reader's thread receives meanwhile
RESTS: Final = 10  # ticks without a batch, after which it waits to be called: nothing wakes up in an idle worker
_BATCH: Final = int(Kind.BATCH)
_RESULT: Final = int(Kind.RESULT)


class Stop(Exception):
    """The end of the process, with its exit code and the reason for stderr (empty = say nothing).

    The reason begins with the code's words of ``wire.payload.SAYS``, by which the server knows that the code is ours.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        if code in SAYS:
            reason = f"{SAYS[code]}: {reason}"
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Reader:
    """Receives frames; ``inbox`` gets a WARM and the LOAD frame, batches, and finally one :class:`Stop`.

    The thread that receives holds ``_receiving``. The reader's lets go of it when the main thread waits (:meth:`take`),
    and takes it again when it finds it free and the main thread at the same batch for a TICK.
    """

    def __init__(self, link: Link, replies: Replies) -> None:
        self.inbox: SimpleQueue[Frame | Work | Stop] = SimpleQueue()
        self.gone = False
        self.wake: Callable[[], object] | None = None  # called when something has been put into the inbox
        self._link = link
        self._replies = replies
        self._open: dict[int, Work] = {}
        self._finished = threading.Event()
        self._decode_cancel = msgspec.msgpack.Decoder(CancelMeta).decode
        self._feed = FrameReader().feed
        self._buffer = memoryview(bytearray(RECEIVE))
        self._receiving = threading.Lock()
        self._waiting = False  # the main thread wants to receive
        self._taken = 0  # batches that the main thread has taken
        self._resting = False  # the reader's thread looks again only when it is called
        self._large = False  # it is to receive at once
        self._call = threading.Lock()
        self._call.acquire()
        self._stop = Stop(ASKED)

    def start(self) -> None:
        """Receive from now on."""
        threading.Thread(target=self._run, name="mlserve-reader", daemon=True).start()

    def take(self) -> Frame | Work | Stop:
        """What comes next, for a main thread that computes one batch after the other."""
        inbox = self.inbox
        while inbox.empty():
            self._waiting = True  # before the second look: the reader's thread looks at it behind each put
            if inbox.empty():
                with self._receiving:
                    if inbox.empty():
                        self._receive()
            self._waiting = False
        item = inbox.get()
        self._taken += 1
        if isinstance(item, Work) and len(item.body) > RECEIVE:
            self._large = True
            self._call_reader()
        elif self._resting:
            self._call_reader()
        return item

    def done(self, work: Work) -> None:
        """The batch is answered; later cancels for it are void."""
        self._open.pop(work.batch_id, None)

    def finish(self) -> None:
        """The main thread has left its loop."""
        self._finished.set()

    def _call_reader(self) -> None:
        self._resting = False
        if self._call.locked():
            self._call.release()

    def _run(self) -> None:
        """The reader's thread: receives when it is to, and sees to it that the process ends when the server has."""
        with self._receiving:
            while not self.gone:
                self._receive()
                if self._waiting:
                    self._receiving.release()
                    self._look()
        if not self._finished.wait(EOF_GRACE):  # a handler that never returns must not outlive the server
            if self._stop.reason:
                print(self._stop.reason, file=sys.stderr, flush=True)
            os._exit(self._stop.code)

    def _look(self) -> None:
        """Return with ``_receiving`` when the main thread computes something long or large; see ``RESTS``."""
        seen, idle = self._taken, 0
        while True:
            if idle < RESTS:
                self._call.acquire(timeout=TICK)
            else:
                self._resting = True
                if seen == self._taken:
                    self._call.acquire()
                self._resting = False
            if seen == self._taken or self._large:
                self._large = False
                if self._receiving.acquire(blocking=False):
                    if not self._waiting:
                        return
                    self._receiving.release()
                idle += 1
            else:
                seen, idle = self._taken, 0

    def _receive(self) -> None:
        """Receive once and act on it. After the end of the stream there is a :class:`Stop`.

        ``recv`` makes 64 KiB anew each time and cuts them to what came. Small pieces of such blocks, kept by malloc for
        the thread that freed them, push the next ones ever further up: 0.3 MiB a minute at 500 batches a second. Hence
        one buffer, and copies out of it (700 bytes: 1.3 us, 64 KiB: 6.7 instead of 4.6).
        """
        try:
            size = self._link.sock.recv_into(self._buffer)
        except OSError as error:
            if error.errno is None:  # raised by a signal's handler: the model's business
                raise
            size = 0
        try:
            if size:
                self._act(self._feed(bytes(self._buffer[:size])))
            else:
                self._end(Stop(ASKED))
        except OSError:
            self._end(Stop(ASKED))
        except (FrameError, msgspec.MsgspecError) as error:
            self._end(Stop(EXIT_PROTOCOL_ERROR, str(error)))
        if self.wake is not None:
            self.wake()

    def _end(self, stop: Stop) -> None:
        self._stop = stop
        self.gone = True
        self.inbox.put(stop)

    def _act(self, frames: list[Frame]) -> None:
        received = monotonic()
        for frame in frames:
            if frame.kind == _BATCH:
                work = Work(frame.batch_id, frame.meta, frame.body, received)
                self._open[frame.batch_id] = work
                self.inbox.put(work)
            else:
                self._control(frame)

    def _control(self, frame: Frame) -> None:
        if frame.kind == Kind.PING:
            self._link.send_meta(Kind.PONG, frame.batch_id)
        elif frame.kind == Kind.CANCEL:
            work = self._open.get(frame.batch_id)
            if work is not None:
                work.cancelled.add(self._decode_cancel(frame.meta).index)
                if work.on_cancel is not None:
                    work.on_cancel()
        elif frame.kind == Kind.RELEASE:
            self._replies.release(frame.batch_id)
        elif frame.kind == Kind.DRAIN:
            self.inbox.put(Stop(ASKED))
        elif frame.kind in (Kind.LOAD, Kind.WARM):
            self.inbox.put(frame)
        else:
            raise FrameError(f"unexpected frame of kind {frame.kind}")


def run(reader: Reader, runner: Runner, link: Link, replies: Replies) -> None:
    """Answer batches until :class:`Stop` is raised."""
    take = reader.take
    while True:
        work = take()
        if isinstance(work, Stop):
            raise work
        if not isinstance(work, Work):
            raise Stop(EXIT_PROTOCOL_ERROR, "a second LOAD")
        if reader.gone:
            continue  # nobody is left to read the answer
        answer(work, runner, link, replies)
        reader.done(work)
        del work  # or its body would be held until the next batch comes
        if runner.fatal:
            raise Stop(EXIT_DEVICE_LOST, runner.fatal)


def answer(work: Work, runner: Runner, link: Link, replies: Replies) -> None:
    """Have a batch handled and tell the server. Raises :class:`Stop` when it is gone, or sent what makes no sense."""
    try:
        meta, bodies = runner.handle(work)
    except (ValueError, msgspec.MsgspecError) as error:
        raise Stop(EXIT_PROTOCOL_ERROR, f"batch {work.batch_id}: {error}") from error
    send_result(work, meta, bodies, link, replies)


def send_result(work: Work, meta: ResultMeta, bodies: list[Buffer], link: Link, replies: Replies) -> None:
    """Tell the server what became of a batch. Raises :class:`Stop` when it is gone."""
    bodies = replies.place(work.batch_id, meta.listed, bodies)
    try:
        link.send(_RESULT, work.batch_id, encode_meta(meta), bodies)
    except OSError:
        raise Stop(ASKED) from None
