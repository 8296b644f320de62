"""The Open Inference Protocol: health, metadata, and inference on tensors for models with a ``kservev2`` envelope."""

from __future__ import annotations

import json
from typing import Any

import orjson

from mlserve.core.messages import InferenceRequest, Part
from mlserve.core.service import InferenceService
from mlserve.errors import ErrorKind, ServeError
from mlserve.rpc.answers import whole
from mlserve.rpc.calls import Call
from mlserve.rpc.generated import open_inference_pb2 as pb
from mlserve.rpc.statuses import MissingParameter, Statuses
from mlserve.rpc.tensors import request_json, response_of

_SERVICE = "org.pytorch.serve.grpc.openinference.GRPCInferenceService"


class OpenInferenceApi:
    """``GRPCInferenceService``."""

    def __init__(self, service: InferenceService, statuses: Statuses) -> None:
        self._service = service
        self._statuses = statuses

    async def server_live(self, request: Any, call: Call) -> pb.ServerLiveResponse:
        """The process runs and its event loop turns."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, request: Any, call: Call) -> pb.ServerReadyResponse:
        """Every required model has a ready worker."""
        return pb.ServerReadyResponse(ready=self._service.health().ready)

    async def server_metadata(self, request: Any, call: Call) -> pb.ServerMetadataResponse:
        """Not served, as in TorchServe."""
        raise ServeError(f"Method {_SERVICE}/ServerMetadata is unimplemented", kind=ErrorKind.UNSUPPORTED)

    async def model_ready(self, request: pb.ModelReadyRequest, call: Call) -> pb.ModelReadyResponse:
        """Whether the version has a ready worker."""
        call.failures = self._statuses.metadata
        if not request.name:
            raise MissingParameter("Parameter name is required.")
        return pb.ModelReadyResponse(ready=self._service.find(request.name, request.version).ready_workers > 0)

    async def model_metadata(self, request: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        """The model's name and versions. What its tensors are nobody has told the server."""
        call.failures = self._statuses.metadata
        if not request.name:
            raise MissingParameter("Parameter model_name is required.")
        self._service.find(request.name, request.version)
        versions = self._service.registry.model(request.name).versions
        return pb.ModelMetadataResponse(name=request.name, versions=list(versions))

    async def model_infer(self, request: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        """The tensors go to the model as the JSON of the protocol's REST form, and come back so."""
        call.model, call.version = request.model_name, request.model_version
        if not request.model_name:
            raise MissingParameter("Parameter model_name is required.")
        handle = self._service.find(request.model_name, request.model_version)
        body = orjson.dumps(request_json(request))
        item = InferenceRequest(
            call.request_id,
            [Part("body", body, "application/json")],
            url_path=None,
            timeout=call.timeout(),
            version=request.model_version,
        )
        answer = await whole(self._service, handle, item, call)
        try:
            document = json.loads(answer)  # not orjson: models answer with NaN and Infinity
        except ValueError:
            document = None
        if isinstance(document, dict):  # a model without an envelope does not know what it is called
            document = {"model_name": request.model_name, "model_version": handle.key.version, **document}
        return response_of(document, raw=bool(request.raw_input_contents), quoted=self._statuses.java)
