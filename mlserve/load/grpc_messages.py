"""Inputs and answers of the two gRPC protocols: files as a user has them <-> messages on the wire.

For the inference API a file is the value of the entry ``data`` of ``input``. For the Open Inference Protocol it is the
JSON of a REST request of the same protocol: ``{"inputs": [{"name", "shape", "datatype", "data"}]}``.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from mlserve.errors import SettingError
from mlserve.load.slots import EXAMPLE_LENGTH, same_answer
from mlserve.load.target import METHODS, STREAMING
from mlserve.rpc.generated import inference_pb2, open_inference_pb2
from mlserve.rpc.tensors import FIELDS

_OWN = (METHODS["grpc"], *STREAMING)


def message(path: str, body: bytes, model: str, version: str, key: str = "data") -> bytes:
    """The request of the method ``path`` that holds ``body``. Raises :class:`SettingError` where it cannot."""
    if path in _OWN:
        request = inference_pb2.PredictionsRequest(model_name=model, model_version=version, input={key: body})
        return bytes(request.SerializeToString())
    try:
        return infer_request(json.loads(body), model, version)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise SettingError(
            "an input for the Open Inference Protocol is JSON like "
            '{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]}]}: '
            f"{type(error).__name__}: {error}"
        ) from None


def infer_request(document: Any, model: str, version: str) -> bytes:
    """A ``ModelInferRequest`` of the protocol's JSON; elements of BYTES are base64, as on REST."""
    request = open_inference_pb2.ModelInferRequest(
        model_name=model, model_version=version, id=str(document.get("id") or "")
    )
    for item in document["inputs"]:
        kind, data = item["datatype"], _flat(item["data"])
        if kind not in FIELDS:
            raise ValueError(f"the datatype {kind!r} has no field for its elements")
        tensor = request.inputs.add(name=str(item["name"]), datatype=kind, shape=item["shape"])
        if kind == "BYTES":
            data = [base64.b64decode(value, validate=True) for value in data]
        getattr(tensor.contents, FIELDS[kind]).extend(data)
    return bytes(request.SerializeToString())


def prediction(pieces: list[bytes]) -> bytes:
    """What the handler has answered, put together of all messages of the inference API."""
    return b"".join(inference_pb2.PredictionResponse.FromString(piece).prediction for piece in pieces)


def shown(pieces: list[bytes], path: str) -> str:
    """The beginning of an answer in one line, for a message."""
    if path in _OWN:
        text = prediction(pieces).decode("utf-8", "replace")
    else:
        text = str(open_inference_pb2.ModelInferResponse.FromString(b"".join(pieces)))
    return " ".join(text.split())[:EXAMPLE_LENGTH]


def same_message(pieces: list[bytes], expected: bytes, path: str) -> bool:
    """Whether an answer is the expected one: of the inference API its ``prediction``, put together of all pieces; of
    the Open Inference Protocol the tensors, as JSON of a REST answer has them."""
    if path in _OWN:
        return same_answer(prediction(pieces), expected)
    answer = open_inference_pb2.ModelInferResponse.FromString(b"".join(pieces))
    try:
        wanted = [
            (item["name"], item["datatype"], list(item["shape"]), _flat(item["data"]))
            for item in json.loads(expected)["outputs"]
        ]
    except (KeyError, TypeError, ValueError):
        return False
    return [_tensor(tensor) for tensor in answer.outputs] == wanted


def _tensor(tensor: Any) -> tuple[str, str, list[int], list[Any]]:
    values = list(getattr(tensor.contents, FIELDS[tensor.datatype]))
    if tensor.datatype == "BYTES":
        values = [value.decode("utf-8", "replace") for value in values]
    return tensor.name, tensor.datatype, list(tensor.shape), values


def _flat(data: Any) -> list[Any]:
    return [element for part in data for element in _flat(part)] if isinstance(data, list) else [data]
