"""One batch is preprocessed while another computes, for handlers whose phases are apart.

::

    reader thread    BATCH n+1 --> pool
    pool thread                    preprocess n+1
    main thread      inference n   postprocess n   inference n+1 ...

The main thread computes and answers the batches in the order in which they came. A batch whose preprocessing raised is
handled again item by item there, like any other. Each batch has a context of its own.

A queue in the server cuts a batch for a busy worker only when it is full, so this is at work under load alone, and a
lone request takes the same path with one more change of thread (30 us). What it gives is the smaller of the two times:
on a GPU the whole of the decoding; on a CPU that inference fills nothing, as both want the same cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

import msgspec

from mlserve.wire.payload import EXIT_DEVICE_LOST, EXIT_PROTOCOL_ERROR
from mlserve.worker.attempt import Attempts
from mlserve.worker.contexts import let_metrics_follow, own_context, work_on
from mlserve.worker.loop import Reader, Stop, send_result
from mlserve.worker.replies import Replies
from mlserve.worker.runner import Runner, Work, decode_batch, result_of

Finish = Callable[[], list[Any]]


class Prepared(Attempts):
    """A batch in two parts: :meth:`prepare` in a thread of the pool, then :meth:`answer` in the main thread."""

    def __init__(self, runner: Runner, work: Work) -> None:
        own = runner.apart(own_context(runner.context))
        items = decode_batch(work.meta).items
        super().__init__(own, work.batch_id, items, own.rows.cut(items, work.body), work.cancelled)
        self.runner = own
        self._rows: list[dict[str, Any]] | None = None
        self._finish: Finish | None = None
        self._error: BaseException | None = None

    def prepare(self) -> Prepared:
        """Decode the rows and have the handler preprocess them. What it raises is kept for the answer."""
        rows = super()._prepare(list(range(len(self._items))))
        if rows and self.runner.entry.ahead is not None:
            try:
                self._finish = self.runner.entry.ahead(rows, self._context)
            except BaseException as error:
                self._error = error
        self._rows = rows
        return self

    def _prepare(self, indices: Any) -> list[dict[str, Any]]:
        rows, self._rows = self._rows, None
        return super()._prepare(indices) if rows is None else rows

    def _call(self, rows: list[dict[str, Any]]) -> Any:
        error, self._error = self._error, None
        if error is not None:
            raise error
        finish, self._finish = self._finish, None
        return super()._call(rows) if finish is None else finish()


class Ahead:
    """Hands batches to the pool as they come. ``ready`` gets them in their order, and finally one :class:`Stop`."""

    def __init__(self, reader: Reader, runner: Runner, pool: ThreadPoolExecutor) -> None:
        self.ready: SimpleQueue[tuple[Work, Future[Prepared]] | Stop] = SimpleQueue()
        self._inbox = reader.inbox
        self._runner = runner
        self._pool = pool
        self._one_at_a_time = threading.Lock()  # or two takers could put their batches in the wrong order
        reader.wake = self.take
        self.take()  # what came before

    def take(self) -> None:
        """Take all there is. Called by the reader's thread, and once by the main thread."""
        with self._one_at_a_time:
            while True:
                try:
                    work = self._inbox.get_nowait()
                except Empty:
                    return
                if isinstance(work, Work):
                    self.ready.put((work, self._pool.submit(_prepared, self._runner, work)))
                else:
                    self.ready.put(work if isinstance(work, Stop) else Stop(EXIT_PROTOCOL_ERROR, "a second LOAD"))


def _prepared(runner: Runner, work: Work) -> Prepared:
    return Prepared(runner, work).prepare()


def run_ahead(reader: Reader, runner: Runner, replies: Replies, threads: int) -> None:
    """Answer batches until :class:`Stop` is raised, preprocessing up to ``threads`` of them beside the one computed."""
    let_metrics_follow(runner.context)
    with ThreadPoolExecutor(threads, "mlserve-preprocess") as pool:
        ready = Ahead(reader, runner, pool).ready
        while True:
            taken = ready.get()
            if isinstance(taken, Stop):
                raise taken
            work, future = taken
            if reader.gone:
                continue  # nobody is left to read the answer
            _answer(work, future, runner, replies)
            reader.done(work)
            del taken, work, future  # or its body would be held until the next batch comes


def _answer(work: Work, future: Future[Prepared], runner: Runner, replies: Replies) -> None:
    try:
        batch = future.result()
    except (ValueError, msgspec.MsgspecError) as error:
        raise Stop(EXIT_PROTOCOL_ERROR, f"batch {work.batch_id}: {error}") from error
    started, context = monotonic(), batch.runner.context
    work_on(context)
    batch.answer(list(range(len(batch.results.items))))
    meta, bodies = result_of(batch, context, work, started)
    send_result(work, meta, bodies, runner.link, replies)
    if batch.runner.fatal:
        raise Stop(EXIT_DEVICE_LOST, batch.runner.fatal)
