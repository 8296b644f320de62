"""``Predictions`` by callbacks: no task, no coroutine, no message of the protobuf library for the answer.

It is what most calls ask for, and a task with its queue costs more than all else that is done for one.
"""

from __future__ import annotations

from typing import Any

from mlserve.core.job import Job
from mlserve.core.messages import Chunk, InferenceResponse
from mlserve.core.service import InferenceService
from mlserve.errors import ServeError
from mlserve.rpc.calls import Call, Calls, Method
from mlserve.rpc.codes import Code
from mlserve.rpc.frames import sevens
from mlserve.rpc.inference import InferenceApi
from mlserve.rpc.large import cut
from mlserve.rpc.stream import Bytes, Stream


def by_callbacks(service: InferenceService, api: InferenceApi, method: Method) -> None:
    """Serve a method whose requests and answers are those of ``Predictions`` without tasks."""
    read, accept = method.read, api.accept

    def submit(calls: Calls, stream: Stream, message: Bytes) -> None:
        call = Prediction(calls, stream)
        try:
            calls.check(stream.head.authorization)
            handle, item = accept(cut(message) or read(message), call, call.request_id)
            item.timeout = call.timeout()
            call.service = service
            stream.owner = call
            call.job = service.submit(handle, item, call.on_done, call.on_chunk)
        except Exception as error:
            stream.owner = None
            call.fail(error)
            calls.note(call)

    method.submit = submit


class Prediction(Call):
    """A call from its request to its answer. The pieces of a streamed answer are put together."""

    service: Any = None
    _pieces: list[bytes] | None = None

    def gone(self) -> None:
        """The client waits for it no more."""
        self.code = Code.CANCELLED
        if self.job is not None:
            self.service.cancel(self.job)

    def on_chunk(self, job: Job, chunk: Chunk) -> None:
        """A piece of the answer."""
        self._pieces = self._pieces or []
        self._pieces.append(chunk.data)

    def on_done(self, job: Job) -> None:
        """The ending of the job."""
        self.job = job
        result = job.result
        if self.code is Code.CANCELLED:
            pass
        elif type(result) is InferenceResponse:
            body = result.body
            if self._pieces:
                body = b"".join((*self._pieces, body))
            before = prediction_head(len(body))
            self.size = len(before) + len(body)
            self.stream.answer(body, before)
        else:
            self.fail(result if isinstance(result, ServeError) else ServeError("The request ended without a result"))
        self.calls.note(self)


def prediction_head(length: int) -> bytes:
    """What stands before the bytes of ``prediction`` in a ``PredictionResponse``: tag of field 1, and a varint."""
    if length < 128:
        return bytes((0x0A, length)) if length else b""
    return b"\x0a" + sevens(length)
