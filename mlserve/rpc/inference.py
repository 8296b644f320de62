"""The inference API: health, one request with one answer, and streams of pieces.

What a handler finds in a row are the entries of ``input`` as bytearrays, whatever they hold: gRPC has no content types.
There is no explaining and no rest of a path here, and the client's metadata does not reach the handler.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from mlserve.core.messages import InferenceRequest, Part
from mlserve.core.registry import VersionHandle
from mlserve.core.sequence import SequenceHeaders
from mlserve.core.service import InferenceService
from mlserve.protocols.errors import json_body
from mlserve.rpc.answers import pieces, whole
from mlserve.rpc.calls import Call
from mlserve.rpc.generated.inference_pb2 import PredictionResponse, PredictionsRequest, TorchServeHealthResponse
from mlserve.rpc.large import Cut
from mlserve.rpc.sequences import SequenceStream
from mlserve.rpc.statuses import MissingParameter


class InferenceApi:
    """``InferenceAPIsService``."""

    def __init__(self, service: InferenceService, headers: SequenceHeaders) -> None:
        self._service = service
        self._headers = headers
        self._streams: set[SequenceStream] = set()

    async def ping(self, request: Any, call: Call) -> TorchServeHealthResponse:
        """``Healthy`` when every required model has a ready worker."""
        state = "Healthy" if self._service.health().ready else "Unhealthy"
        return TorchServeHealthResponse(health=json_body({"status": state}).decode().rstrip("\n"))

    async def predictions(self, request: PredictionsRequest, call: Call) -> PredictionResponse:
        """One answer; the pieces of a streamed one are put together."""
        handle, item = self.accept(request, call, call.request_id)
        item.timeout = call.timeout()
        return PredictionResponse(prediction=await whole(self._service, handle, item, call))

    async def stream_predictions(self, request: PredictionsRequest, call: Call) -> AsyncIterator[PredictionResponse]:
        """A message per piece of the answer; the last one is what the handler returned in the end."""
        handle, item = self.accept(request, call, call.request_id)
        item.timeout = call.timeout()
        async with aclosing(pieces(self._service, handle, item, call)) as answer:  # type: ignore[type-var]  # a generator
            async for piece in answer:
                yield PredictionResponse(prediction=piece)

    async def stream_predictions2(self, requests: Any, call: Call) -> AsyncIterator[PredictionResponse]:
        """Many requests in one call, see :class:`SequenceStream`."""
        stream = SequenceStream(self._service, call, self.accept, self._headers)
        self._streams.add(stream)
        try:
            async with aclosing(stream.responses(requests)) as responses:  # type: ignore[type-var]  # a generator
                async for response in responses:
                    yield response
        finally:
            self._streams.discard(stream)

    def close(self) -> None:
        """The server is stopping: open streams take no more requests."""
        for stream in list(self._streams):
            stream.close()

    def accept(
        self, request: PredictionsRequest | Cut, call: Call, request_id: str, sequence_id: str | None = None
    ) -> tuple[VersionHandle, InferenceRequest]:
        """The version that is to answer, and the request as it goes to it. Raises ``MissingParameter``, NotFound."""
        call.model, call.version = request.model_name, request.model_version
        if not request.model_name:
            raise MissingParameter("Parameter model_name is required.")
        handle = self._service.find(request.model_name, request.model_version)
        parts = [Part(name, value) for name, value in request.input.items()]
        sequence = request.sequence_id if sequence_id is None else sequence_id
        headers = [(self._headers.id.encode(), sequence.encode())] if sequence else []
        item = InferenceRequest(
            request_id, parts, headers, url_path=None, version=request.model_version, sequence_id=sequence
        )
        return handle, item
