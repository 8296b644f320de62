"""Continuous batching: the handler is called again and again with all requests that are not done, new ones among them.

Each step answers every request once. What ``context.stopping_criteria[row]`` says of the answer decides: False = it is
a piece, and the request is there in the next step; True = it was the last piece; None = it is the whole answer. Between
two steps requests join that have come meanwhile, at most one of each sequence, and those leave whose client is gone.
Running requests keep their rows, headers and ids; TorchServe's handlers know them again by their ids.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Any

import msgspec

from mlserve.errors import InvalidInput
from mlserve.wire.frames import Kind, encode_meta
from mlserve.wire.payload import EXIT_DEVICE_LOST, EXIT_PROTOCOL_ERROR, ChunkMeta, ItemResult, ReceivedItem, ResultMeta
from mlserve.worker.attempt import Attempts
from mlserve.worker.context import WireRequest
from mlserve.worker.link import Buffer
from mlserve.worker.loop import ASKED, Reader, Stop
from mlserve.worker.metrics import take_metrics
from mlserve.worker.replies import Replies
from mlserve.worker.results import Results
from mlserve.worker.rows import Part
from mlserve.worker.runner import Runner, Work, decode_batch
from mlserve.worker.streams import ChunkSender

log = logging.getLogger("mlserve.worker")


class Running:
    """A request from when it joins until its last answer."""

    def __init__(self, work: Work, item: ReceivedItem, raw: Sequence[Part], chunks: ChunkSender) -> None:
        self.work = work
        self.item = item
        self.raw = raw
        self.chunks = chunks
        self.request = WireRequest(item)
        self.row: dict[str, Any] | None = None
        self.started = 0.0
        self.seconds = [0.0, 0.0, 0.0]
        self.streamed = False

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return bool(self.work.cancelled)


class _Step(Attempts):
    """One call of the handler with all of ``running``. ``more`` are those that go on."""

    def __init__(self, runner: Runner, running: Sequence[Running]) -> None:
        super().__init__(runner, 0, [each.item for each in running], [each.raw for each in running], set())
        self._running = running
        self.more: set[int] = set()

    def _prepare(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        rows = []
        self._live = []
        for index in indices:
            running = self._running[index]
            if running.row is None:
                try:
                    running.row = self._runner.rows.row(running.item, running.raw)
                except InvalidInput as error:
                    self.results.fail(index, error)
                    continue
            rows.append(running.row)
            self._live.append(index)
        requests = [self._running[index].request for index in self._live]
        self._context.begin(requests, self._is_cancelled, self._send)
        return rows

    def _is_cancelled(self, row: int) -> bool:
        return self._running[self._live[row]].cancelled

    def _send(self, row: int, piece: Any) -> None:
        running = self._running[self._live[row]]
        running.chunks.send(0, piece, self._context.reply(row), first=not running.streamed)
        running.streamed = True

    def _raised(self, error: BaseException, mark: int) -> None:
        """None of them is tried again: the handler's state has moved on."""
        self._note_fatal(error)
        self._fail(self._live, error)

    def _collect(self, output: Any, seconds: float) -> None:
        criteria, live = self._context.stopping_criteria, self._live
        if criteria and isinstance(output, list) and len(output) == len(live):
            try:
                ended = [criteria[row](element) for row, element in enumerate(output)]
            except Exception as error:
                self._raised(error, 0)
                return
            self.more = {live[row] for row, end in enumerate(ended) if end is not None and not end}
        super()._collect(output, seconds)


class Steps:
    """The requests of this worker, and what happens to them. ``busy`` while there are any."""

    def __init__(self, runner: Runner, reader: Reader, replies: Replies) -> None:
        self._runner = runner
        self._reader = reader
        self._replies = replies
        self._link = runner.link
        self._sequence_header = runner.load.sequence_id_header.encode("latin-1")
        self._waiting: deque[Running] = deque()
        self._running: list[Running] = []

    @property
    def busy(self) -> bool:
        """Whether there is something to compute."""
        return bool(self._waiting or self._running)

    def take(self, work: Work) -> None:
        """A request has come. Raises ValueError if the frame makes no sense."""
        items = decode_batch(work.meta).items
        if len(items) != 1:
            raise ValueError(f"{len(items)} requests at once; in continuous batching they come one by one")
        (raw,) = self._runner.rows.cut(items, work.body)
        chunks = ChunkSender(self._link, work.batch_id, self._runner.load.infer_content_type)
        self._waiting.append(Running(work, items[0], raw, chunks))

    def step(self) -> None:
        """Let requests leave and join, call the handler once, and send what it answered."""
        self._leave()
        self._join()
        running = self._running
        if not running:
            return
        now = monotonic()
        for each in running:
            each.started = each.started or now
        step = _Step(self._runner, running)
        step.answer(list(range(len(running))))
        results, bodies = step.results.finish()
        self._runner.context.begin(())
        for each in running:
            each.seconds = [before + more for before, more in zip(each.seconds, step.seconds, strict=True)]
        self._running = [running[index] for index in sorted(step.more) if not results[index].error]
        for index, each in enumerate(running):
            if index in step.more and not results[index].error:
                self._send_piece(each, results[index], bodies[index])
            else:
                self._answer(each, results[index], bodies[index])

    def _leave(self) -> None:
        gone = [each for each in (*self._running, *self._waiting) if each.cancelled]
        if not gone:
            return
        self._running = [each for each in self._running if each not in gone]
        self._waiting = deque(each for each in self._waiting if each not in gone)
        results = Results(len(gone), False, 0)
        for index, each in enumerate(gone):
            log.info("Connection to client got closed; Removing job: %s", each.item.request_id)
            results.cancel(index)
        for each, item in zip(gone, results.finish()[0], strict=True):
            self._answer(each, item, b"")

    def _join(self) -> None:
        joined: set[bytes] = set()
        later: deque[Running] = deque()
        for each in self._waiting:
            sequence = dict(each.item.headers).get(self._sequence_header, b"")
            if sequence and sequence in joined:
                later.append(each)
                continue
            joined.add(sequence)
            self._running.append(each)
        self._waiting = later

    def _send_piece(self, running: Running, item: ItemResult, body: Buffer) -> None:
        running.streamed = True
        meta = ChunkMeta(0, item.content_type, item.headers, item.status, item.reason)
        self._to_server(Kind.CHUNK, running.work.batch_id, meta, [body])

    def _answer(self, running: Running, item: ItemResult, body: Buffer) -> None:
        work = running.work
        records = take_metrics(self._runner.context)
        pre, inference, post = running.seconds
        now = monotonic()
        meta = ResultMeta([item], work.received, running.started or now, now, pre, inference, post, records)
        bodies = self._replies.place(work.batch_id, meta.items, [body])
        self._to_server(Kind.RESULT, work.batch_id, meta, bodies)
        self._reader.done(work)

    def _to_server(self, kind: Kind, batch_id: int, meta: object, bodies: Sequence[Buffer]) -> None:
        try:
            self._link.send(kind, batch_id, encode_meta(meta), bodies)
        except OSError:
            raise Stop(ASKED) from None


def run_steps(reader: Reader, runner: Runner, replies: Replies) -> None:
    """Take requests and step until :class:`Stop` is raised."""
    steps, inbox = Steps(runner, reader, replies), reader.inbox
    while True:
        while not (steps.busy and inbox.empty()):
            work = inbox.get()
            if isinstance(work, Stop):
                raise work
            if not isinstance(work, Work):
                raise Stop(EXIT_PROTOCOL_ERROR, "a second LOAD")
            try:
                steps.take(work)
            except (ValueError, msgspec.MsgspecError) as error:
                raise Stop(EXIT_PROTOCOL_ERROR, f"batch {work.batch_id}: {error}") from error
        steps.step()
        if runner.fatal:
            raise Stop(EXIT_DEVICE_LOST, runner.fatal)
