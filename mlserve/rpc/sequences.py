"""Many requests in one bidirectional call: answers of a sequence leave in the order of its requests.

A request is queued as soon as it has come, so that requests of different sequences share batches; what is ready before
its turn waits. A failed request is answered by a ``status`` in its response, and the call goes on. At most ``WINDOW``
requests of a call are unanswered: the next one is read when there is room, which slows its sender down.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.rpc import error_details_pb2

from mlserve.core.events import STREAM_BACKLOG
from mlserve.core.job import Job
from mlserve.core.messages import Chunk, InferenceRequest, InferenceResponse
from mlserve.core.registry import VersionHandle
from mlserve.core.sequence import SequenceHeaders
from mlserve.core.service import InferenceService
from mlserve.errors import ServeError
from mlserve.rpc.calls import Call
from mlserve.rpc.generated.inference_pb2 import PredictionResponse, PredictionsRequest
from mlserve.rpc.statuses import MissingParameter

WINDOW = 256

Accept = Callable[[PredictionsRequest, Call, str, str], tuple[VersionHandle, InferenceRequest]]


class _Exchange:
    """One request of the call and what is to be said to it. ``model`` and ``version`` are those that it names."""

    __slots__ = ("done", "job", "model", "responses", "sequence_id", "version")

    def __init__(self, sequence_id: str, model: str, version: str) -> None:
        self.sequence_id = sequence_id
        self.model = model
        self.version = version
        self.job: Job | None = None
        self.responses: deque[PredictionResponse] = deque()
        self.done = False


class SequenceStream:
    """One call of ``StreamPredictions2``."""

    def __init__(self, service: InferenceService, call: Call, accept: Accept, headers: SequenceHeaders) -> None:
        self._service = service
        self._call = call
        self._accept = accept
        self._headers = headers
        self._sequences: dict[str, deque[_Exchange]] = {}
        self._ready: deque[PredictionResponse] = deque()
        self._waiting = 0  # bytes that are ready, or wait for their turn
        self._open = 0  # requests that are not answered to their end
        self._count = 0
        self._closed = False  # no request will come any more
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    async def responses(self, requests: AsyncIterator[PredictionsRequest]) -> AsyncIterator[PredictionResponse]:
        """Every answer; ends when the client has sent its last request and all are answered."""
        reader = asyncio.ensure_future(self._read(requests))
        try:
            while True:
                self._changed.clear()
                while self._ready:
                    response = self._ready.popleft()
                    self._waiting -= len(response.prediction)
                    self._room.set()
                    yield response
                if self._closed and not self._open:
                    return
                await self._changed.wait()
        finally:
            reader.cancel()
            left = [exchange.job for exchanges in self._sequences.values() for exchange in exchanges]
            for job in left:  # cancelling answers, and so changes the sequences
                if job is not None:
                    self._service.cancel(job)

    def close(self) -> None:
        """Read no more; what has been accepted is answered."""
        self._closed = True
        self._changed.set()
        self._room.set()

    async def _read(self, requests: AsyncIterator[PredictionsRequest]) -> None:
        try:
            async for request in requests:
                if self._closed:
                    return
                self._take(request)
                while not self._closed and self._full():
                    self._room.clear()
                    await self._room.wait()
        finally:
            self.close()

    def _full(self) -> bool:
        """Failures are answered at once, and in a client that does not read they would pile up like other answers."""
        return max(self._open, len(self._ready)) >= WINDOW or self._waiting > STREAM_BACKLOG

    def _take(self, request: PredictionsRequest) -> None:
        begins = _is_true(request.input.get(self._headers.start))
        sequence_id = request.sequence_id or (f"ts-seq-{uuid.uuid4()}" if begins else "")
        exchange = _Exchange(sequence_id, request.model_name, request.model_version)
        self._sequences.setdefault(sequence_id, deque()).append(exchange)
        self._open += 1
        self._count += 1
        try:
            if not sequence_id:
                raise MissingParameter("Parameter sequenceId is required.")
            request_id = f"{self._call.request_id}-{self._count}"
            handle, item = self._accept(request, self._call, request_id, sequence_id)
            flags = ((self._headers.start, begins), (self._headers.end, _is_true(request.input.get(self._headers.end))))
            item.headers = [*item.headers, *((name.encode(), b"true") for name, is_set in flags if is_set)]
            exchange.job = self._service.submit(
                handle,
                item,
                lambda job: self._on_done(exchange, job),
                lambda job, chunk: self._on_chunk(exchange, job, chunk),
            )
        except ServeError as error:
            self._end(exchange, self._failed(exchange, error))

    def _on_chunk(self, exchange: _Exchange, job: Job, chunk: Chunk) -> None:
        self._say(exchange, PredictionResponse(prediction=chunk.data, sequence_id=exchange.sequence_id))
        if self._waiting > STREAM_BACKLOG:
            self._service.cancel(job)

    def _on_done(self, exchange: _Exchange, job: Job) -> None:
        result = job.result
        if isinstance(result, InferenceResponse):
            response = PredictionResponse(prediction=bytes(result.body), sequence_id=exchange.sequence_id)
        else:
            response = self._failed(exchange, result or ServeError("The request ended without a result"))
        self._end(exchange, response)

    def _failed(self, exchange: _Exchange, error: ServeError) -> PredictionResponse:
        failure = self._call.failures(error, exchange.model, exchange.version)
        response = PredictionResponse()
        if exchange.sequence_id:
            response.sequence_id = exchange.sequence_id
        response.status.code = int(failure.code)
        response.status.message = failure.message
        response.status.details.add().Pack(error_details_pb2.ErrorInfo(reason=failure.reason))
        return response

    def _end(self, exchange: _Exchange, response: PredictionResponse) -> None:
        exchange.done = True
        self._say(exchange, response)

    def _say(self, exchange: _Exchange, response: PredictionResponse) -> None:
        """Add to the answer of a request, and send what is its sequence's turn."""
        exchange.responses.append(response)
        self._waiting += len(response.prediction)
        exchanges = self._sequences[exchange.sequence_id]
        while exchanges:
            head = exchanges[0]
            self._ready.extend(head.responses)
            head.responses.clear()
            if not head.done:
                break
            exchanges.popleft()
            self._open -= 1
        if not exchanges:
            del self._sequences[exchange.sequence_id]
        self._changed.set()
        self._room.set()


def _is_true(value: Any) -> bool:
    return isinstance(value, bytes) and value.lower() == b"true"
