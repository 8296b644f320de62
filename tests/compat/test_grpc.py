"""gRPC as TorchServe's clients know it: answers, statuses and details of both ports, in one server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from support.drop_in import DropIn, archive
from support.grpc_client import TIMEOUT, refusal

from mlserve.rpc.generated import inference_pb2, inference_pb2_grpc, management_pb2, management_pb2_grpc

SOURCE = """
from ts.utils.util import PredictionException

def handle(data, context):
    if data is None:
        return None
    value = data[0]["data"]
    if value == b"memory":
        raise MemoryError("no")
    if value == b"odd":
        raise PredictionException("odd", 599)
    if value == b"status":
        context.set_response_status(507, "full", 0)
    return [type(value).__name__]
"""
INTERNAL = "org.pytorch.serve.http.InternalServerException"
NO_MODEL = "org.pytorch.serve.archive.model.ModelNotFoundException"
NO_VERSION = "org.pytorch.serve.archive.model.ModelVersionNotFoundException"
PROCESSING = "Processing worker updates..."


class Client:
    """Both services of a server."""

    def __init__(self, inference: grpc.Channel, management: grpc.Channel) -> None:
        self.inference = inference_pb2_grpc.InferenceAPIsServiceStub(inference)
        self.management = management_pb2_grpc.ManagementAPIsServiceStub(management)

    def predict(self, value: str = "x", model: str = "kinds", version: str = "") -> bytes:
        request = inference_pb2.PredictionsRequest(
            model_name=model, model_version=version, input={"data": value.encode()}
        )
        return self.inference.Predictions(request, timeout=TIMEOUT).prediction

    def manage(self, method: str, **fields: Any) -> str:
        request = getattr(management_pb2, f"{method}Request")(**fields)
        return getattr(self.management, method)(request, timeout=TIMEOUT).msg


@pytest.fixture(scope="module")
def client(start) -> Iterator[Client]:
    live: DropIn = start()
    archive(live.store, "kinds", SOURCE)
    assert live.manage("POST", "/models?url=kinds.mar&initial_workers=1").status == 200
    targets = [f"127.0.0.1:{live.ports[f'grpc_{api}']}" for api in ("inference", "management")]
    with grpc.insecure_channel(targets[0]) as inference, grpc.insecure_channel(targets[1]) as management:
        yield Client(inference, management)


def test_health_is_told_as_text(client: Client) -> None:
    assert json.loads(client.inference.Ping(Empty(), timeout=TIMEOUT).health) == {"status": "Healthy"}


def test_inputs_reach_the_handler_as_bytearray_and_its_status_is_ignored(client: Client) -> None:
    assert client.predict() == client.predict("status") == client.predict(version="1.0") == b"bytearray"


@pytest.mark.parametrize(
    ("fields", "details"),
    [
        ({"model": "none"}, f"Model not found: none\n{NO_MODEL}"),
        ({"version": "9"}, f"Model version: 9 does not exist for model: kinds\n{NO_VERSION}"),
        ({"model": ""}, "Parameter model_name is required.\nBadRequestException.()"),
        ({"value": "memory"}, f"Out of resources\n{INTERNAL}"),
        ({"value": "odd"}, f"odd\n{INTERNAL}"),
    ],
)
def test_a_failed_prediction_is_internal(client: Client, fields: dict[str, str], details: str) -> None:
    assert refusal(lambda: client.predict(**fields)) == ("INTERNAL", details)


@pytest.mark.parametrize(
    ("method", "fields", "code", "message"),
    [
        ("DescribeModel", {"model_name": "none"}, "NOT_FOUND", "Model not found: none"),
        ("ScaleWorker", {"model_name": "none", "min_worker": 1}, "NOT_FOUND", "Model not found: none"),
        ("SetDefault", {"model_name": "none", "model_version": "1"}, "NOT_FOUND", "Model not found: none"),
        ("UnregisterModel", {"model_name": "none"}, "NOT_FOUND", "Model not found: none"),
        ("RegisterModel", {}, "INVALID_ARGUMENT", "Parameter url is required."),
        ("RegisterModel", {"url": "kinds.mar", "runtime": "x"}, "INVALID_ARGUMENT", "Invalid RuntimeType value: x"),
        ("RegisterModel", {"url": "none.mar"}, "NOT_FOUND", "Model not found at: none.mar"),
        ("UnregisterModel", {}, "INVALID_ARGUMENT", "Parameter url is required."),
    ],
)
def test_a_refused_change_has_torchserves_status(
    client: Client, method: str, fields: dict[str, Any], code: str, message: str
) -> None:
    status, details = refusal(lambda: client.manage(method, **fields))
    assert (status, details.split("\n")[0]) == (code, message)


def test_a_second_registration_is_unknown_and_without_details(client: Client) -> None:
    assert refusal(lambda: client.manage("RegisterModel", url="kinds.mar")) == ("UNKNOWN", "")


def test_a_model_goes_through_its_whole_life(client: Client) -> None:
    said = client.manage("RegisterModel", url="noop.mar", model_name="life", initial_workers=1, synchronous=True)
    assert said == 'Model "life" Version: 1.11 registered with 1 initial workers'
    (model,) = json.loads(client.manage("DescribeModel", model_name="life"))
    assert (model["modelName"], model["modelVersion"], len(model["workers"])) == ("life", "1.11", 1)
    assert client.predict(model="life") == b"OK"
    said = client.manage("ScaleWorker", model_name="life", min_worker=2, synchronous=True)
    assert said.startswith("Workers scaled to ")
    assert said.endswith(" for model: life")
    said = client.manage("SetDefault", model_name="life", model_version="1.11")
    assert said == 'Default version successfully updated for model "life" to "1.11"'
    assert client.manage("UnregisterModel", model_name="life") == 'Model "life" unregistered'
    assert refusal(lambda: client.manage("DescribeModel", model_name="life"))[0] == "NOT_FOUND"


def test_changes_are_answered_before_they_are_made(client: Client) -> None:
    assert client.manage("RegisterModel", url="noop.mar", model_name="later", initial_workers=1) == PROCESSING
    assert client.manage("ScaleWorker", model_name="later", min_worker=1) == PROCESSING
    client.manage("UnregisterModel", model_name="later")


def test_the_list_has_no_model_unless_a_limit_is_given(client: Client) -> None:
    assert json.loads(client.manage("ListModels")) == {"nextPageToken": "0", "models": []}
    models = json.loads(client.manage("ListModels", limit=10))["models"]
    assert {"modelName": "kinds", "modelUrl": "kinds.mar"} in models


def test_streams_end_with_the_handlers_answer(client: Client, differs: Callable[[str], None]) -> None:
    differs("stream-of-one")
    request = inference_pb2.PredictionsRequest(model_name="kinds", input={"data": b"x"})
    answers = client.inference.StreamPredictions(request, timeout=TIMEOUT)
    assert b"".join(answer.prediction for answer in answers) == b"bytearray"
