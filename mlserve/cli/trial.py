"""One real worker for a model, and batches of a size that the caller chooses: no server, no queue, no policy.

With ``handlerThreads`` as many batches may be under way at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from mlserve.core.job import Batch, CallbackJob, Job
from mlserve.core.messages import BatchReport, Chunk, InferenceRequest, InferenceResponse, Part
from mlserve.core.model import ModelSpec
from mlserve.core.ports import Pool, Slot
from mlserve.engine.local import LocalEngine
from mlserve.errors import ServeError


@dataclass
class Answer:
    """One request's answer; ``error`` is empty where there is one. The pieces of a stream are joined."""

    body: bytes = b""
    content_type: str = ""
    status: int = 200
    error: str = ""


class Trial:
    """A worker that is told what to compute. Use it as ``async with``: entering loads the model, leaving ends it.

    Raises :class:`mlserve.errors.WorkerStartError` on entering if the model does not load. It is the queue of its
    worker (a ``SlotEvents``).
    """

    def __init__(self, engine: LocalEngine, spec: ModelSpec) -> None:
        self._spec = replace(spec, min_workers=1, max_workers=1)
        self._pool: Pool = engine.open(self._spec, self)
        self._slot: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._answers: dict[int, asyncio.Future[list[Answer]]] = {}  # by number of the batch
        self._pieces: dict[tuple[int, int], list[bytes]] = {}  # by number of the batch, and place in it
        self._batches = 0
        self.load_seconds = 0.0

    async def __aenter__(self) -> Trial:
        begun = time.monotonic()
        try:
            await self._pool.scale(1)
        except BaseException:
            await self._pool.stop(5.0)
            if self._slot.done():
                self._slot.exception()  # it is this one, which has been asked for now
            raise
        self.load_seconds = time.monotonic() - begun
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.stop(5.0)

    @property
    def memory_bytes(self) -> int:
        """What the worker has resident now."""
        return max((worker.memory_bytes for worker in self._pool.describe()), default=0)

    @property
    def signature(self) -> Mapping[str, Any]:
        """The model's inputs and outputs, where its handler knows them."""
        return next((worker.signature for worker in self._pool.describe() if worker.signature), {})

    async def send(self, inputs: Sequence[tuple[bytes, str]]) -> tuple[list[Answer], float]:
        """Compute one batch of (body, content type); returns the answers and seconds.

        A worker that dies fails every request of the batch.
        """
        slot = await self._slot
        self._batches += 1
        answers = self._answers[self._batches] = asyncio.get_running_loop().create_future()
        jobs = [self._job(index, body, content_type) for index, (body, content_type) in enumerate(inputs)]
        begun = time.monotonic()
        slot.send(Batch(self._batches, jobs, begun, slot))
        return await answers, time.monotonic() - begun

    def _job(self, index: int, body: bytes, content_type: str) -> Job:
        headers = [(b"Content-Type", content_type.encode())] if content_type else []
        request = InferenceRequest(f"trial-{self._batches}-{index}", [Part("body", body, content_type)], headers)
        return CallbackJob(request, lambda job: None, lambda job, chunk: None)

    # -- SlotEvents ---------------------------------------------------------------------------------------------------

    def slot_ready(self, slot: Slot) -> None:
        """The model has been loaded."""
        if self._slot.done():  # it died and was started again
            self._slot = asyncio.get_running_loop().create_future()
        self._slot.set_result(slot)

    def worker_loaded(self, worker_id: int, seconds: float, metrics: Sequence[Any]) -> None:
        """How long that took is measured here."""

    def load_failed(self, metrics: Sequence[Any]) -> None:
        """The pool tells why."""

    def slot_closing(self, slot: Slot) -> None:
        """It is being ended."""

    def slot_lost(self, slot: Slot, started: Sequence[Batch], unstarted: Sequence[Batch], error: ServeError) -> None:
        """See ``SlotEvents``."""
        self._slot = asyncio.get_running_loop().create_future()
        for batch in (*started, *unstarted):
            self._finish(batch, [Answer(error=error.message) for _ in batch.jobs])

    def batch_done(
        self, slot: Slot, batch: Batch, results: Sequence[InferenceResponse | ServeError], report: BatchReport
    ) -> None:
        """See ``SlotEvents``."""
        self._finish(batch, [self._answer((batch.batch_id, at), result) for at, result in enumerate(results)])

    def _answer(self, place: tuple[int, int], result: InferenceResponse | ServeError) -> Answer:
        if isinstance(result, ServeError):
            return Answer(error=result.message)
        body = b"".join(self._pieces.pop(place, [])) + bytes(result.body)
        error = f"status {result.status} {result.reason}".rstrip() if result.status >= 400 else ""
        return Answer(body, result.content_type, result.status, error)

    def _finish(self, batch: Batch, answers: list[Answer]) -> None:
        waiting = self._answers.pop(batch.batch_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answers)

    def item_chunk(self, batch: Batch, index: int, chunk: Chunk) -> None:
        """See ``SlotEvents``."""
        self._pieces.setdefault((batch.batch_id, index), []).append(bytes(chunk.data))

    def gave_up(self, error: ServeError) -> None:
        """See ``SlotEvents``."""
        if not self._slot.done():
            self._slot.set_exception(error)
