"""A gRPC client of a test server: the stubs of both ports, and what a refused call says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlserve.rpc.generated import (
    inference_pb2,
    inference_pb2_grpc,
    management_pb2_grpc,
    open_inference_pb2_grpc,
)
from support.server import LiveServer, running

TIMEOUT = 30.0
JAVA = {"SERVER_HTTP_STYLE": "torchserve", "SERVER_HANDLER_ERROR_STATUS": "503", "SERVER_ERROR_DETAIL": "none"}
"""The settings of TorchServe's profile that shape gRPC answers."""


class Stubs:
    """``inference``, ``management`` and ``open_inference`` of one server."""

    def __init__(self, server: LiveServer, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.server = server
        self._channels = []
        for api in ("inference", "management"):
            target = f"127.0.0.1:{server.port(f'grpc_{api}')}"
            options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.ssl_target_name_override", "localhost")]
            channel = (
                grpc.insecure_channel(target, options)
                if credentials is None
                else grpc.secure_channel(target, credentials, options)
            )
            self._channels.append(channel)
        self.channel = self._channels[0]
        self.inference = inference_pb2_grpc.InferenceAPIsServiceStub(self._channels[0])
        self.management = management_pb2_grpc.ManagementAPIsServiceStub(self._channels[1])
        self.open_inference = open_inference_pb2_grpc.GRPCInferenceServiceStub(self._channels[0])

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def predict(self, text: str, model: str = "modes", **fields: Any) -> bytes:
        """Predictions with ``text`` under the key ``data``."""
        return self.inference.Predictions(ask(text, model, **fields), timeout=TIMEOUT).prediction

    def sequence(self, *requests: Any) -> list[Any]:
        """StreamPredictions2 with these requests; every response."""
        return list(self.inference.StreamPredictions2(iter(requests), timeout=TIMEOUT))


def ask(text: str, model: str = "modes", **fields: Any) -> Any:
    return inference_pb2.PredictionsRequest(model_name=model, input={"data": text.encode()}, **fields)


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """(code, details) of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


@contextlib.contextmanager
def serving(directory: Path, *models: str, settings: dict[str, str] | None = None, **options: Any) -> Iterator[Stubs]:
    """A server with gRPC on, ready, and its stubs."""
    with running(directory, *models, settings={"GRPC_ENABLED": "true", **(settings or {})}, **options) as server:
        stubs = Stubs(server)
        try:
            yield stubs
        finally:
            stubs.close()
