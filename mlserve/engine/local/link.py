"""The socket to one worker: batches down, results up. This is the hot path; the worker's life is in ``supervisor``.

One write and one read per batch, no task, no future: 20 us both ways together for a batch of 8 small items, of which 6
are msgspec's (2.5 GHz Xeon). Results match by batch id, never by order. Times are ``time.monotonic()``, which all
processes of a host share, and never the loop's own clock, because uvloop's has a resolution of a millisecond.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, cast

import msgspec

from mlserve.core.job import DONE
from mlserve.core.messages import BatchReport, Chunk, InferenceResponse
from mlserve.engine.local.batches import Malformed, Outgoing, all_failed, decode_meta, decode_results
from mlserve.errors import ErrorKind, ServeError
from mlserve.wire.frames import MAX_META, Frame, FrameError, FrameReader, Kind, frame, header
from mlserve.wire.payload import (
    CancelMeta,
    ChunkMeta,
    Hello,
    Load,
    LoadFailed,
    LogRecordMeta,
    Ready,
    Warm,
    Warmed,
)

if TYPE_CHECKING:
    from mlserve.core.job import Batch
    from mlserve.core.ports import SlotEvents
    from mlserve.wire.lending import LendingArena

log = logging.getLogger(__name__)

_BATCH: Final = int(Kind.BATCH)
_RESULT: Final = int(Kind.RESULT)
_CHUNK: Final = int(Kind.CHUNK)
_PONG: Final = int(Kind.PONG)
_JOIN_BELOW: Final = 32 << 10  # one buffer is cheaper to write than many small ones: joining 32 KiB takes 1.5 us
_decode_chunk: Final = msgspec.msgpack.Decoder(ChunkMeta).decode
_decode_log: Final = msgspec.msgpack.Decoder(LogRecordMeta).decode


class LinkOwner(Protocol):
    """Who is told what is no business of the queue's."""

    def link_hello(self, hello: Hello) -> None:
        """The worker's program runs."""

    def link_warmed(self, warmed: Warmed) -> None:
        """The spare worker has imported what it was told to."""

    def link_ready(self, ready: Ready) -> None:
        """The worker has loaded the model."""

    def link_failed(self, failed: LoadFailed) -> None:
        """The worker could not load the model and will exit."""

    def link_log(self, record: LogRecordMeta) -> None:
        """A record of the worker's ``logging``."""

    def link_fault(self, slug: str, text: str) -> None:
        """The worker cannot be used any more and must be killed."""

    def link_closed(self) -> None:
        """End of the stream: the worker is gone or going."""


class WorkerLink(asyncio.Protocol):
    """A loaded worker as the queue sees it (``core.ports.Slot``), and the stream to it.

    ``progress`` is when the batch at the head was last heard of, or could have begun; of ``at_once`` batches that are
    computed at a time, the one that this is longest ago for. ``heard`` is when anything came.
    To a ``patient`` link any sign of life is progress: its worker sends them unasked while it computes.
    """

    def __init__(
        self,
        worker_id: int,
        events: SlotEvents,
        owner: LinkOwner,
        request_arena: LendingArena | None = None,
        reply_arena: LendingArena | None = None,
        *,
        patient: bool = False,
        at_once: int = 1,
    ) -> None:
        self.worker_id = worker_id
        self.in_flight = 0
        self.progress = self.heard = monotonic()
        self._free = 0.0  # when the worker ended a batch last
        self._events = events
        self._owner = owner
        self._request_arena = request_arena
        self._reply_arena = reply_arena
        self._patient = patient
        self._begun: dict[int, float] | None = {} if at_once > 1 else None  # batch id -> its ``progress``
        self._at_once = at_once
        self._sent: dict[int, tuple[Batch, float, list[bytes | memoryview]]] = {}
        self._unread: list[int] = []  # batches whose answers need not stay in the arena any more
        self._reader = FrameReader()
        self._drained: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- Slot ---------------------------------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """See ``core.ports.Slot``. Bodies are not copied, except into the arena or where the whole batch is small.

        What answers of earlier batches took of the worker's arena is given back on the way: the worker needs it for
        the answers to this one, and not before.
        """
        out = Outgoing(batch, self._request_arena)
        now = monotonic()
        if not self.in_flight:
            self.progress = now
        if self._begun is not None and len(self._begun) < self._at_once:
            self._begin(batch.batch_id, now)
        self.in_flight += 1
        self._sent[batch.batch_id] = (batch, now, out.held)
        length, meta_length = out.length, out.meta_length
        if out.too_large or meta_length > MAX_META:
            self._refuse(batch, out, length + meta_length)
            return
        if self._transport is None:  # lost a moment ago: slot_lost will name this batch
            return
        head = header(_BATCH, batch.batch_id, meta_length, length)
        if self._unread:
            head = self._releases() + head
        if length < _JOIN_BELOW:
            self._transport.write(b"".join([head, *out.meta, *out.bodies]))
        else:
            self._transport.writelines([head, b"".join(out.meta), *out.bodies])

    def cancel(self, batch: Batch, index: int) -> None:
        """See ``core.ports.Slot``."""
        if batch.batch_id in self._sent:
            self._write(frame(Kind.CANCEL, batch.batch_id, CancelMeta(index)))
            self._check_drained()

    # -- what the worker's owner calls --------------------------------------------------------------------------------

    def load(self, message: Load) -> None:
        """Tell the worker what to load."""
        self._write(frame(Kind.LOAD, meta=message))

    def warm(self, message: Warm) -> None:
        """Tell a spare worker what to import."""
        self._write(frame(Kind.WARM, meta=message))

    def hand_over(self, worker_id: int, events: SlotEvents, owner: LinkOwner, *, patient: bool, at_once: int) -> None:
        """Make the link to a spare worker that of worker ``worker_id``."""
        self.worker_id, self._events, self._owner, self._patient = worker_id, events, owner, patient
        self._at_once, self._begun = at_once, {} if at_once > 1 else None

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._write(frame(Kind.PING))

    def drain(self) -> None:
        """Tell the worker to end when it has answered everything."""
        self._write(frame(Kind.DRAIN))

    async def drained(self) -> None:
        """Return when nobody waits for a batch in flight; for ever if the worker dies first.

        A batch whose requests have all been cancelled or have timed out may be computing still: see ``in_flight``.
        """
        if self._awaited():
            self._drained = self._drained or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    async def closed(self, timeout: float) -> None:
        """Return at the end of the stream, or after ``timeout`` seconds."""
        await asyncio.wait({self._end}, timeout=timeout)

    def close(self) -> None:
        """Close the stream; what has been received is not looked at any more."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def abandon(self) -> list[Batch]:
        """Forget the batches in flight and return them, oldest first."""
        left = [batch for batch, _sent, _held in self._sent.values()]
        self._sent.clear()
        if self._begun is not None:
            self._begun.clear()
        self.in_flight -= len(left)
        return left

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Cut frames and act on each. Whatever the worker sends, nothing is raised: a bad frame is its end."""
        self.heard = now = monotonic()
        try:
            for frm in self._reader.feed(data):
                if frm.kind == _RESULT:
                    self._result(frm, now)
                elif frm.kind == _CHUNK:
                    self._chunk(frm, now)
                elif frm.kind != _PONG:
                    self._other(frm)
                elif self._patient:
                    self.progress = now
        except (FrameError, Malformed, msgspec.MsgspecError, UnicodeDecodeError) as error:  # the last is msgspec's too
            self._owner.link_fault("protocol_error", f"sent a frame that cannot be read: {error}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of the stream."""
        self._transport = None
        if not self._end.done():
            self._end.set_result(None)
        self._owner.link_closed()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _result(self, frm: Frame, now: float) -> None:
        meta = decode_meta(frm.meta)
        entry = self._sent.get(frm.batch_id)
        if entry is None:
            return
        batch, sent, _held = entry
        results = decode_results(meta, frm.body, len(batch.jobs), self._reply_arena, self._unread, frm.batch_id)
        del self._sent[frm.batch_id], entry, _held
        # A batch that came while another was computed may have lain in the socket: that is waiting, not a long way.
        received = sent if sent < self._free < meta.received else meta.received
        self._free = meta.finished
        transfer = (received - sent) + (now - meta.finished)
        report = BatchReport(
            transfer, meta.preprocess, meta.inference, meta.postprocess, meta.metrics, meta.started - received
        )
        self.progress = now
        self._ended(batch.batch_id, now)
        self._done(batch, results, report)

    def _begin(self, batch_id: int, now: float) -> None:
        """Batch ``batch_id`` can be computed, or was heard of."""
        if self._begun is not None:
            self._begun[batch_id] = now
            self.progress = min(self._begun.values())

    def _ended(self, batch_id: int, now: float) -> None:
        """Batch ``batch_id`` leaves its thread to the first that waits: a worker takes them as they came."""
        begun = self._begun
        if not begun or begun.pop(batch_id, None) is None:
            return
        waiting = next((one for one in self._sent if one not in begun), None)
        if waiting is not None:
            begun[waiting] = now
        self.progress = min(begun.values(), default=now)

    def _done(self, batch: Batch, results: Sequence[InferenceResponse | ServeError], report: BatchReport) -> None:
        self.in_flight -= 1
        try:
            self._events.batch_done(self, batch, results, report)
        except Exception:  # a fault of the server's own must not end a healthy worker
            log.exception("could not take the results of batch %d", batch.batch_id)
        self._check_drained()

    def _awaited(self) -> bool:
        return any(job.state != DONE for batch, _, _ in self._sent.values() for job in batch.jobs)

    def _check_drained(self) -> None:
        if self._drained is not None and not self._awaited():
            self._drained.set_result(None)
            self._drained = None

    def _chunk(self, frm: Frame, now: float) -> None:
        meta = _decode_chunk(frm.meta)
        entry = self._sent.get(frm.batch_id)
        if entry is None:
            return
        batch = entry[0]
        if not 0 <= meta.index < len(batch.jobs):
            raise Malformed(f"a chunk for item {meta.index} of a batch of {len(batch.jobs)}")
        if self._begun is None:
            self.progress = now
        else:
            self._begin(frm.batch_id, now)
        chunk = Chunk(bytes(frm.body), meta.content_type, meta.headers, meta.status, meta.reason)
        try:
            self._events.item_chunk(batch, meta.index, chunk)
        except Exception:
            log.exception("could not take a chunk of batch %d", frm.batch_id)

    def _other(self, frm: Frame) -> None:
        if frm.kind == Kind.LOG:
            self._owner.link_log(_decode_log(frm.meta))
        elif frm.kind == Kind.HELLO:
            self._owner.link_hello(msgspec.msgpack.decode(frm.meta, type=Hello))
        elif frm.kind == Kind.WARMED:
            self._owner.link_warmed(msgspec.msgpack.decode(frm.meta, type=Warmed))
        elif frm.kind == Kind.READY:
            self._owner.link_ready(msgspec.msgpack.decode(frm.meta, type=Ready))
        elif frm.kind == Kind.FAILED:
            self._owner.link_failed(msgspec.msgpack.decode(frm.meta, type=LoadFailed))
        else:
            raise Malformed(f"a frame of kind {frm.kind}, which workers do not send")

    def _refuse(self, batch: Batch, out: Outgoing, size: int) -> None:
        """Answer a batch that no frame can hold, in the next turn: the queue is in the middle of sending it."""
        del self._sent[batch.batch_id]
        self._ended(batch.batch_id, monotonic())
        error = ServeError(
            f"The requests of one batch have {size} bytes together, more than a worker takes: "
            "lower batch_size or max_request_size",
            kind=ErrorKind.TOO_LARGE,
        )
        asyncio.get_running_loop().call_soon(self._done, batch, all_failed(batch, error), BatchReport())

    def _releases(self) -> bytes:
        frames = []
        while self._unread:
            frames.append(header(Kind.RELEASE, self._unread.pop()))
        return b"".join(frames)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
