"""``ts.handler_utils.micro_batching``: the pieces of a batch are in different phases at the same time.

While one piece is on the GPU the next is decoded. Each phase has threads of its own; ``micro_batching: {parallelism:
{preprocess: 2, ...}, micro_batch_size: 4}`` in model-config.yaml is where handlers keep the numbers by convention.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from mlserve.handlers import profiling

HANDLER_METHODS = ["preprocess", "inference", "postprocess"]
POLL = 0.5  # seconds until a thread that was told to end notices it


@dataclass
class WorkerThread:
    """A thread of a phase, and how it is told to end."""

    event: threading.Event
    thread: threading.Thread


@dataclass(order=True)
class _Piece:
    number: int
    run: object = field(compare=False)  # the batch that it belongs to; one that has failed leaves pieces behind
    value: Any = field(compare=False)
    error: BaseException | None = field(default=None, compare=False)


class MicroBatching:
    """Takes the place of a handler's ``handle``: ``self.handle = MicroBatching(self, micro_batch_size=4)``."""

    def __init__(
        self, parent_handler: Any, micro_batch_size: int = 1, parallelism: Mapping[str, int] | None = None
    ) -> None:
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self.thread_groups: dict[str, list[WorkerThread]] = {method: [] for method in HANDLER_METHODS}
        self.thread_local_data = threading.local()
        between: list[SimpleQueue[_Piece]] = [SimpleQueue() for _ in range(len(HANDLER_METHODS) + 1)]
        self.queues: dict[str, SimpleQueue[_Piece]] = {}
        for number, method in enumerate(HANDLER_METHODS):
            self.queues[f"{method}_in"], self.queues[f"{method}_out"] = between[number], between[number + 1]
        self._parallelism: dict[str, int] = {}
        self.parallelism = dict(parallelism or {})

    def __del__(self) -> None:
        for group in getattr(self, "thread_groups", {}).values():
            for worker in group:
                worker.event.set()

    @property
    def parallelism(self) -> dict[str, int]:
        """Phase -> number of threads; 1 where nothing was set. Setting it adds to what was set before."""
        return dict(self._parallelism)

    @parallelism.setter
    def parallelism(self, parallelism: Mapping[str, int]) -> None:
        for method, count in parallelism.items():
            if method not in HANDLER_METHODS or not isinstance(count, int) or count < 0:
                raise ValueError(
                    f"micro_batching.parallelism: {method}: {count!r}; expected a number of threads, from 0, "
                    f"for {', '.join(HANDLER_METHODS)}"
                )
        self._parallelism.update(parallelism)
        for method in HANDLER_METHODS:
            self._scale(method, self._parallelism.get(method, 1))

    def _scale(self, method: str, count: int) -> None:
        group = self.thread_groups[method]
        while len(group) < count:
            event = threading.Event()
            queues = self.queues[f"{method}_in"], self.queues[f"{method}_out"]
            arguments = (weakref.ref(self), method, *queues, self.thread_local_data, event)
            thread = threading.Thread(target=_work, args=arguments, daemon=True, name=f"micro-{method}-{len(group)}")
            group.append(WorkerThread(event, thread))
            thread.start()
        ended = group[count:]
        del group[count:]
        for worker in ended:
            worker.event.set()
        for worker in ended:
            worker.thread.join()

    def shutdown(self) -> None:
        """End all threads."""
        for method in HANDLER_METHODS:
            self._scale(method, 0)

    def get_micro_batch_idx(self) -> int | None:
        """The number of the piece that the calling thread works on, from 0; None in other threads."""
        return getattr(self.thread_local_data, "micro_batch_idx", None)

    def handle(self, data: list[Any]) -> list[Any]:
        """The results of a batch, in order. What a phase raises is raised here."""
        run, size = object(), self.micro_batch_size
        starts = range(0, len(data), size)
        for number, start in enumerate(starts):
            self.queues[f"{HANDLER_METHODS[0]}_in"].put(_Piece(number, run, data[start : start + size]))
        done: list[_Piece] = []
        while len(done) < len(starts):
            piece = self.queues[f"{HANDLER_METHODS[-1]}_out"].get()
            if piece.run is not run:
                continue
            if piece.error is not None:
                raise piece.error
            done.append(piece)
        return [item for piece in sorted(done) for item in piece.value]

    def __call__(self, data: list[Any], context: Any) -> Any:
        """Answer a batch, as ``BaseHandler.handle`` does."""
        started = time.perf_counter()
        handler = self.handler
        handler.context = context
        if profiling.enabled():
            output, _ = handler._infer_with_profiler(data=data)
        elif handler._is_describe():
            return [handler.describe_handle()]
        elif handler._is_explain():
            output = handler.explain_handle(handler.preprocess(data), data)
        else:
            output = self.handle(data)
        handler._report(context, started)
        return output


def _work(
    owner: weakref.ref[MicroBatching],
    method: str,
    taken: SimpleQueue[_Piece],
    given: SimpleQueue[_Piece],
    local: threading.local,
    ended: threading.Event,
) -> None:
    """A thread of one phase. It holds no reference to its owner while it waits, or neither would ever go."""
    while not ended.is_set():
        try:
            piece = taken.get(timeout=POLL)
        except Empty:
            continue
        batching = owner()
        if batching is None:
            return
        if piece.error is None:
            local.micro_batch_idx = piece.number
            try:
                piece.value = getattr(batching.handler, method)(piece.value)
            except BaseException as error:
                piece.error = error
        given.put(piece)
        del batching, piece
