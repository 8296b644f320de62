"""The management API: messages -> the actions that it shares with REST -> the text of the answer.

A number of 0 or less and an empty text count as not given, because proto3 cannot tell them from it.
"""

from __future__ import annotations

from typing import Any

from mlserve.protocols.actions import ManagementActions, message
from mlserve.rpc.calls import Call
from mlserve.rpc.generated import management_pb2 as pb
from mlserve.rpc.statuses import MissingParameter, ModelApiOff, Statuses

_TEXTS = ("url", "model_name", "handler", "runtime")
_NUMBERS = ("batch_size", "initial_workers", "max_batch_delay", "response_timeout", "startup_timeout")


class ManagementApi:
    """``ManagementAPIsService``. Without ``model_api`` models cannot be registered and unregistered."""

    def __init__(self, actions: ManagementActions, statuses: Statuses, *, model_api: bool) -> None:
        self._actions = actions
        self._statuses = statuses
        self._model_api = model_api

    async def describe_model(self, request: pb.DescribeModelRequest, call: Call) -> pb.ManagementResponse:
        """One version, or every one."""
        customized = request.customized and request.model_version != "all"
        if customized:
            call.failures = self._statuses.customized
        parameters = {"customized": "true"} if customized else {}
        return _answer(await self._actions.describe(request.model_name, request.model_version, parameters))

    async def list_models(self, request: pb.ListModelsRequest, call: Call) -> pb.ManagementResponse:
        """A page of models."""
        page = {"limit": request.limit, "next_page_token": request.next_page_token}
        return _answer(await self._actions.list_models(page))

    async def register_model(self, request: pb.RegisterModelRequest, call: Call) -> pb.ManagementResponse:
        """Load a version and start its workers."""
        self._check_model_api()
        texts = {name: getattr(request, name) for name in _TEXTS if getattr(request, name)}
        numbers = {name: getattr(request, name) for name in _NUMBERS if getattr(request, name) > 0}
        flags = {"synchronous": request.synchronous, "s3_sse_kms": request.s3_sse_kms}
        return _answer(await self._actions.register({**texts, **numbers, **flags}))

    async def scale_worker(self, request: pb.ScaleWorkerRequest, call: Call) -> pb.ManagementResponse:
        """Change the number of workers."""
        low = max(1, request.min_worker)
        high = request.max_worker if request.max_worker > 0 else low
        parameters = {"min_worker": low, "max_worker": high, "synchronous": request.synchronous}
        return _answer(await self._actions.scale(request.model_name, request.model_version, parameters))

    async def set_default(self, request: pb.SetDefaultRequest, call: Call) -> pb.ManagementResponse:
        """Choose the version for requests that name none."""
        return _answer(await self._actions.set_default(request.model_name, request.model_version))

    async def unregister_model(self, request: pb.UnregisterModelRequest, call: Call) -> pb.ManagementResponse:
        """Take a version out of service."""
        self._check_model_api()
        if not request.model_name:
            field = "url" if self._statuses.java else "model_name"  # TorchServe names the wrong one
            raise MissingParameter(f"Parameter {field} is required.")
        return _answer(await self._actions.unregister(request.model_name, request.model_version))

    def _check_model_api(self) -> None:
        if not self._model_api:
            how = "" if self._statuses.java else "; models.model_api = true allows it"
            raise ModelApiOff(f"Model API disabled{how}")


def _answer(result: tuple[int, Any]) -> pb.ManagementResponse:
    return pb.ManagementResponse(msg=message(result[1]))
