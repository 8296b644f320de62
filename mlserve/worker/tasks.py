"""Asynchronous handlers: requests are computed side by side on one event loop, and answered in any order.

Each request has a task and a context of its own; what a handler keeps on the context it was initialized with is shared.
A request whose client is gone has its task cancelled. One that fails fails alone.

While requests are in flight the loop sends a sign of life every second: a handler may await for minutes, and
``response_timeout`` is to find the one that blocks the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from queue import Empty
from time import monotonic, perf_counter
from typing import Any

import msgspec

from mlserve.wire.frames import Kind
from mlserve.wire.payload import EXIT_DEVICE_LOST, EXIT_PROTOCOL_ERROR
from mlserve.worker.attempt import Attempts
from mlserve.worker.contexts import let_metrics_follow, own_context
from mlserve.worker.loop import ASKED, Reader, Stop, send_result
from mlserve.worker.replies import Replies
from mlserve.worker.runner import Runner, Work, decode_batch, result_of
from mlserve.worker.streams import is_stream

SIGN_OF_LIFE = 1.0  # seconds


class _Attempt(Attempts):
    """One request through a coroutine."""

    async def answer_it(self) -> None:
        """Await the handler, and send what it yields as it comes."""
        start = perf_counter()
        rows = self._prepare(list(range(len(self._items))))
        if not rows:
            return
        called = perf_counter()
        try:
            output = self._runner.entry.call(rows, self._context)
            if hasattr(output, "__await__"):
                output = await output
            output = await self._exhaust(output)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._add_phases(start, called, perf_counter())
            if self._cancelled and isinstance(error, asyncio.CancelledError):
                for index in self._live:
                    self.results.cancel(index)
            else:
                self._raised(error, 0)
            return
        returned = perf_counter()
        self._add_phases(start, called, returned)
        self._collect(output, returned - called)
        self.seconds[2] += perf_counter() - returned

    async def _exhaust(self, output: Any) -> Any:
        """Send the pieces of generators; what is left to answer is a list."""
        if is_stream(output):
            async for pieces in _values(output):
                self._send_pieces(pieces)
            return [b""] * len(self._live)
        if isinstance(output, list) and len(output) == len(self._live):
            output = list(output)
            for row, element in enumerate(output):
                if is_stream(element):
                    async for piece in _values(element):
                        self._send(row, piece)
                    output[row] = b""
        return output


async def _values(stream: Any) -> AsyncIterator[Any]:
    """What a generator yields, plain or async; others get their turn in between."""
    try:
        if hasattr(stream, "__anext__"):
            async for value in stream:
                yield value
        else:
            for value in stream:
                yield value
                await asyncio.sleep(0)
    finally:
        if hasattr(stream, "aclose"):
            await stream.aclose()
        else:
            stream.close()


class Tasks:
    """The requests of this worker, a task each."""

    def __init__(self, runner: Runner, reader: Reader, replies: Replies) -> None:
        self._runner = runner
        self._reader = reader
        self._replies = replies
        self._link = runner.link
        self._loop = asyncio.get_running_loop()
        self._open: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        let_metrics_follow(runner.context)

    async def serve(self) -> None:
        """Answer requests until :class:`Stop` is raised."""
        self._reader.wake = self._wake
        self._take()
        self._live_on()
        await self._ended

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._take)

    def _live_on(self) -> None:
        if self._open:
            try:
                self._link.send_meta(Kind.PONG)
            except OSError:
                self._end(Stop(ASKED))
        self._loop.call_later(SIGN_OF_LIFE, self._live_on)

    def _end(self, stop: Stop) -> None:
        if not self._ended.done():
            self._ended.set_exception(stop)

    def _take(self) -> None:
        while not self._ended.done():
            try:
                work = self._reader.inbox.get_nowait()
            except Empty:
                return
            if isinstance(work, Stop):
                self._end(work)
            elif isinstance(work, Work):
                task = self._loop.create_task(self._answer(work))
                self._open.add(task)
                task.add_done_callback(self._closed)
            else:
                self._end(Stop(EXIT_PROTOCOL_ERROR, "a second LOAD"))

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._ended.done():
            self._ended.set_exception(error)  # not the handler's: that has an answer

    async def _answer(self, work: Work) -> None:
        started = monotonic()
        task = asyncio.current_task()
        assert task is not None
        cancel = task.cancel  # not before here: a task that is cancelled before it runs gives no answer at all
        work.on_cancel = lambda: self._loop.call_soon_threadsafe(cancel)
        runner = self._runner.apart(own_context(self._runner.context))
        try:
            items = decode_batch(work.meta).items
            raw = runner.rows.cut(items, work.body)
        except (ValueError, msgspec.MsgspecError) as error:
            self._end(Stop(EXIT_PROTOCOL_ERROR, f"batch {work.batch_id}: {error}"))
            return
        attempt = _Attempt(runner, work.batch_id, items, raw, work.cancelled)
        await attempt.answer_it()
        self._reader.done(work)
        meta, bodies = result_of(attempt, runner.context, work, started)
        try:
            send_result(work, meta, bodies, self._link, self._replies)
        except Stop as stop:
            self._end(stop)
        if runner.fatal:
            self._end(Stop(EXIT_DEVICE_LOST, runner.fatal))


async def serve(reader: Reader, runner: Runner, replies: Replies) -> None:
    """Answer requests until :class:`Stop` is raised."""
    await Tasks(runner, reader, replies).serve()
