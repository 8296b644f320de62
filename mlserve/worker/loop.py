"""The worker's two threads.

The reader takes frames off the socket as they come, so that the next batch arrives while the current one computes; it
answers PING itself and notes cancels. The main thread runs the handler, because handlers may use what only works there
(``signal``). Between them is one queue; what is not a batch in it ends the loop.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic

import msgspec

from mlserve.wire.frames import Frame, FrameError, FrameReader, Kind, encode_meta
from mlserve.wire.payload import CancelMeta, ResultMeta
from mlserve.worker.link import Buffer, Link
from mlserve.worker.replies import Replies
from mlserve.worker.runner import Runner, Work

ASKED, LOAD_FAILED, PROTOCOL_ERROR, DEVICE_LOST = 0, 3, 4, 5
EOF_GRACE = 2.0  # seconds that a running handler gets after the server is gone
RECEIVE = 64 << 10  # bytes


class Stop(Exception):
    """The end of the process, with its exit code and the reason for stderr (empty = say nothing)."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Reader(threading.Thread):
    """Reads frames; ``inbox`` gets a WARM and the LOAD frame, batches, and finally one :class:`Stop`."""

    def __init__(self, link: Link, replies: Replies) -> None:
        super().__init__(name="mlserve-reader", daemon=True)
        self.inbox: SimpleQueue[Frame | Work | Stop] = SimpleQueue()
        self.gone = False
        self.wake: Callable[[], object] | None = None  # called when something has been put into the inbox
        self._link = link
        self._replies = replies
        self._open: dict[int, Work] = {}
        self._finished = threading.Event()
        self._decode_cancel = msgspec.msgpack.Decoder(CancelMeta).decode

    def run(self) -> None:
        """Read until the end of the stream, then see to it that the process ends."""
        try:
            self._read()
            stop = Stop(ASKED)
        except OSError:
            stop = Stop(ASKED)
        except (FrameError, msgspec.MsgspecError) as error:
            stop = Stop(PROTOCOL_ERROR, f"protocol error: {error}")
        self.gone = True
        self.inbox.put(stop)
        if self.wake is not None:
            self.wake()
        if not self._finished.wait(EOF_GRACE):  # a handler that never returns must not outlive the server
            if stop.reason:
                print(stop.reason, file=sys.stderr, flush=True)
            os._exit(stop.code)

    def done(self, work: Work) -> None:
        """The batch is answered; later cancels for it are void."""
        self._open.pop(work.batch_id, None)

    def finish(self) -> None:
        """The main thread has left its loop."""
        self._finished.set()

    def _read(self) -> None:
        """Receive into one buffer and copy out of it (700 bytes: 1.3 us, 64 KiB: 6.7 instead of 4.6).

        ``recv`` makes 64 KiB anew each time and cuts them to what came. Small pieces of such blocks, kept by malloc for
        the thread that freed them, push the next ones ever further up: 0.3 MiB a minute at 500 batches a second.
        """
        receive, feed = self._link.sock.recv_into, FrameReader().feed
        buffer = memoryview(bytearray(RECEIVE))
        while size := receive(buffer):
            frames = feed(bytes(buffer[:size]))
            received = monotonic()
            for frame in frames:
                if frame.kind == Kind.BATCH:
                    work = Work(frame.batch_id, frame.meta, frame.body, received)
                    self._open[frame.batch_id] = work
                    self.inbox.put(work)
                else:
                    self._control(frame)
            if self.wake is not None:
                self.wake()

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
    take = reader.inbox.get
    while True:
        work = take()
        if isinstance(work, Stop):
            raise work
        if not isinstance(work, Work):
            raise Stop(PROTOCOL_ERROR, "protocol error: a second LOAD")
        if reader.gone:
            continue  # nobody is left to read the answer
        answer(work, runner, link, replies)
        reader.done(work)
        del work  # or its body would be held until the next batch comes
        if runner.fatal:
            raise Stop(DEVICE_LOST, f"the device is lost to this process: {runner.fatal}")


def answer(work: Work, runner: Runner, link: Link, replies: Replies) -> None:
    """Have a batch handled and tell the server. Raises :class:`Stop` when it is gone, or sent what makes no sense."""
    try:
        meta, bodies = runner.handle(work)
    except (ValueError, msgspec.MsgspecError) as error:
        raise Stop(PROTOCOL_ERROR, f"protocol error in batch {work.batch_id}: {error}") from error
    send_result(work, meta, bodies, link, replies)


def send_result(work: Work, meta: ResultMeta, bodies: list[Buffer], link: Link, replies: Replies) -> None:
    """Tell the server what became of a batch. Raises :class:`Stop` when it is gone."""
    bodies = replies.place(work.batch_id, meta.listed, bodies)
    try:
        link.send(Kind.RESULT, work.batch_id, encode_meta(meta), bodies)
    except OSError:
        raise Stop(ASKED) from None
