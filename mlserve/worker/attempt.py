"""One batch through the handler, so that every item gets an ending of its own.

The handler is called once for the batch. When it raises and there was more than one item, each is handled again alone
on freshly decoded rows: one bad item never fails its batch mates (``isolate_errors``). A batch of which pieces have
been streamed already is not tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from time import perf_counter
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from mlserve.errors import InvalidInput, ServeError
from mlserve.native import mypyc_attr
from mlserve.wire.payload import ItemMeta, ReceivedItem
from mlserve.worker import failures
from mlserve.worker.context import WireRequests
from mlserve.worker.metrics import Metrics
from mlserve.worker.results import Results
from mlserve.worker.rows import Part
from mlserve.worker.streams import ChunkSender, as_generator, drain, is_stream

if TYPE_CHECKING:
    from mlserve.worker.runner import Runner

log: Final = logging.getLogger("mlserve.worker")


class _BatchStream:
    """What a ``handle`` that is a generator itself gave so far: its first value, and the rest."""

    def __init__(self, steps: Generator[Any, None, None]) -> None:
        self.steps = steps
        self.values = [value] if (value := next(steps, self)) is not self else []

    def __iter__(self) -> Generator[Any, None, None]:
        yield from self.values
        yield from self.steps


@mypyc_attr(allow_interpreted_subclasses=True)
class Attempts:
    """The state of one batch while it is answered. ``seconds`` are preprocess, inference and postprocess."""

    def __init__(
        self,
        runner: Runner,
        batch_id: int,
        items: Sequence[ItemMeta | ReceivedItem],
        raw: Sequence[Sequence[Part]],
        cancelled: set[int],
    ) -> None:
        load = runner.load
        self._runner = runner
        self._context: Any = runner.context  # a handler may have put anything on it
        self._items = items
        self._raw = raw
        self._cancelled = cancelled
        self._batch_id = batch_id
        self._chunks: ChunkSender | None = None
        self._live: list[int] = []  # row in the handler's data -> item of the batch
        self._streamed: set[int] = set()  # items of which a piece has been sent
        self.results = Results(len(items), load.infer_content_type, load.max_response_size, load.strict_results)
        self.seconds = [0.0, 0.0, 0.0]

    def answer(self, indices: Sequence[int]) -> None:
        """Call the handler with those items of ``indices`` that somebody waits for and that can be decoded."""
        start = perf_counter()
        rows = self._prepare(indices)
        if not rows:
            return
        called = perf_counter()
        metrics = self._context.metrics
        mark = len(metrics.records) if isinstance(metrics, Metrics) else 0
        try:
            output = self._call(rows)
        except (SystemExit, KeyboardInterrupt):
            raise  # the handler ends the process, and says with which code
        except BaseException as error:
            self._add_phases(start, called, perf_counter())
            self._raised(error, mark)
            return
        returned = perf_counter()
        self._add_phases(start, called, returned)
        self._collect(output, returned - called)
        self.seconds[2] += perf_counter() - returned

    def _prepare(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Point the context at the items that go to the handler, and decode their rows."""
        rows: list[dict[str, Any]] = []
        live: list[int] = []
        given = []
        decoder, items, raw, cancelled = self._runner.rows, self._items, self._raw, self._cancelled
        for index in indices:
            if cancelled and index in cancelled:
                self.results.cancel(index)
                continue
            item = items[index]
            try:
                rows.append(decoder.row(item, raw[index]))
            except InvalidInput as error:
                self.results.fail(index, error)
                continue
            live.append(index)
            given.append(item)
        self._live = live
        self._context.begin(WireRequests(given), self._is_cancelled, self._send)
        return rows

    def _is_cancelled(self, row: Any) -> bool:
        return self._live[row] in self._cancelled

    def _send(self, row: Any, piece: Any) -> None:
        """Send a piece of the answer to ``row``, any kind of integer, unless nobody waits for it."""
        index = self._live[row]
        if index not in self._cancelled:
            first = index not in self._streamed
            self._streamed.add(index)
            if self._chunks is None:
                self._chunks = ChunkSender(self._runner.link, self._batch_id, self._runner.load.infer_content_type)
            self._chunks.send(index, piece, self._context.reply(row), first=first)

    def _call(self, rows: list[dict[str, Any]]) -> Any:
        output = self._runner.entry.call(rows, self._context)
        if type(output) is list:
            return output
        if hasattr(output, "__await__"):
            output = self._runner.run(output)
        if is_stream(output):  # its code runs up to the first piece here, where an exception can still be isolated
            output = _BatchStream(as_generator(output, self._runner.run))
        return output

    def _add_phases(self, start: float, called: float, returned: float) -> None:
        phases, seconds = self._context.phases, self.seconds
        if not (phases.preprocess or phases.inference or phases.postprocess):
            phases.inference = returned - called
        seconds[0] += phases.preprocess + called - start
        seconds[1] += phases.inference
        seconds[2] += phases.postprocess

    def _raised(self, error: BaseException, mark: int) -> None:
        live, runner = self._live, self._runner
        self._note_fatal(error)
        if not runner.fatal and len(live) > 1 and runner.load.isolate_errors and not self._streamed:
            log.warning("A batch of %d failed (%s); handling its items one by one", len(live), failures.describe(error))
            if isinstance(self._context.metrics, Metrics):
                del self._context.metrics.records[mark:]  # or they would count twice
            self._one_by_one(live)
        else:
            self._fail(live, error)

    def _one_by_one(self, indices: Sequence[int]) -> None:
        for index in indices:
            if self._runner.fatal:
                self.results.fail(index, ServeError(f"The device was lost: {self._runner.fatal}"))
            else:
                self.answer([index])

    def _note_fatal(self, error: BaseException) -> None:
        if failures.is_fatal(error):
            self._runner.fatal = failures.describe(error)

    def _fail(self, indices: Sequence[int], error: BaseException) -> None:
        if not failures.is_refusal(error):
            ids = ", ".join(self._items[index].request_id for index in indices[:8])
            log.error("The handler failed for request %s", ids, exc_info=error)
        for index in indices:
            self.results.fail(index, error)

    def _collect(self, output: Any, seconds: float) -> None:
        live, results, context = self._live, self.results, self._context
        if isinstance(output, _BatchStream):
            self._collect_stream(output)
            return
        problem = self._mismatch(output)
        if problem:
            log.error(problem)
            for index in live:
                results.refuse(index, problem)
            return
        if context.report_times and context.metrics is not None:
            context.metrics.add_time("PredictionTime", round(seconds * 1000, 2))
        streams: dict[int, Generator[Any, None, None]] = {}
        replies = context._replies  # what was set, by row
        for row, element in enumerate(output):
            kind = type(element)
            if kind is GeneratorType or kind is AsyncGeneratorType:
                streams[row] = as_generator(element, self._runner.run)
                continue
            try:
                results.put(live[row], element, replies.get(row) if replies else None)
            except Exception as error:  # of what the handler's objects do when they are looked at
                self._fail([live[row]], error)
        if results.unsupported and self._runner.load.strict_results:
            log.error("%s", results.unsupported)
            for index in live:
                results.refuse(index, "Unsupported model output data type.")
            return
        if streams:
            drain(streams, self._send, self._is_cancelled, self._ended)

    def _mismatch(self, output: Any) -> str:
        expected = len(self._live)
        if self._runner.load.strict_results:
            if not isinstance(output, list):
                log.warning("model: %s, Invalid return type: %s.", self._context.model_name, type(output))
                return "Invalid model predict output"
            if len(output) != expected:
                return "number of batch response mismatched"
            return ""
        if not isinstance(output, list):
            return (
                f"Invalid model predict output: {self._runner.entry.name} must return a list with one element "
                f"per request, it returned {type(output).__name__}"
            )
        if len(output) != expected:
            return (
                f"number of batch response mismatched: {self._runner.entry.name} got {expected} requests "
                f"and returned {len(output)} elements; it must return one per request, in order"
            )
        return ""

    def _ended(self, row: int, error: Exception | None) -> None:
        if error is None:
            self._end_stream(row)
            return
        self._note_fatal(error)
        self._fail([self._live[row]], error)

    def _end_stream(self, row: int) -> None:
        """An empty last piece."""
        if self._live[row] in self._cancelled:
            self.results.cancel(self._live[row])
        else:
            self.results.put(self._live[row], b"", self._context.reply(row))

    def _send_pieces(self, pieces: Any) -> None:
        """One step of a stream for the whole batch; None is no piece. Raises ``ValueError`` for a wrong number."""
        problem = self._mismatch(pieces)
        if problem:
            raise ValueError(problem)
        for row, piece in enumerate(pieces):
            if piece is not None:
                self._send(row, piece)

    def _collect_stream(self, stream: _BatchStream) -> None:
        live = self._live
        try:
            for pieces in stream:
                self._send_pieces(pieces)
                if self._cancelled.issuperset(live):
                    break
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._note_fatal(error)
            self._fail(live, error)
            return
        finally:
            stream.steps.close()
        for row in range(len(live)):
            self._end_stream(row)
