"""Tensors of the Open Inference Protocol: messages <-> the JSON form that models with a ``kservev2`` envelope read.

In JSON a tensor is ``{"name", "shape", "datatype", "data"}`` with its elements in one list; elements of BYTES are
base64 on the way in, as TorchServe has it. A message has them in a field per data type, or raw: little-endian, elements
of BYTES each after its length in four bytes.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any

from mlserve.errors import InvalidInput, ServeError
from mlserve.rpc.generated import open_inference_pb2 as pb

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Data type -> the field of ``InferTensorContents`` that holds its elements."""
_RAW = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_FLOATS = frozenset(("FP16", "FP32", "FP64"))
RAW_ONLY = frozenset(("FP16",))  # no field of a message holds them


def request_json(request: pb.ModelInferRequest) -> dict[str, Any]:
    """The request as the envelope's JSON. Raises :class:`InvalidInput` for tensors that do not hold what they say."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs")
    inputs = []
    for index, tensor in enumerate(request.inputs):
        data = _from_raw(tensor, raw[index]) if raw else _from_contents(tensor)
        inputs.append({"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype, "data": data})
    return {"id": request.id, "model_name": request.model_name, "inputs": inputs}


def _from_contents(tensor: Any) -> list[Any]:
    field = FIELDS.get(tensor.datatype)
    if field is None:
        raise InvalidInput(f"Input {tensor.name!r}: datatype {tensor.datatype[:20]!r} has no contents; send it raw")
    values = list(getattr(tensor.contents, field))
    return [base64.b64encode(value).decode() for value in values] if field == "bytes_contents" else values


def _from_raw(tensor: Any, data: bytes) -> list[Any]:
    if tensor.datatype == "BYTES":
        return [base64.b64encode(value).decode() for value in _texts(tensor.name, data)]
    kind = _RAW.get(tensor.datatype)
    if kind is None:
        raise InvalidInput(f"Input {tensor.name!r}: datatype {tensor.datatype[:20]!r} is not known here")
    count = math.prod(tensor.shape)
    if min(tensor.shape, default=0) < 0 or len(data) != count * struct.calcsize(kind):
        raise InvalidInput(
            f"Input {tensor.name!r}: {len(data)} bytes of raw contents are no {tensor.datatype} of shape "
            f"{list(tensor.shape)}"
        )
    return list(struct.unpack(f"<{count}{kind}", data))


def _texts(name: str, data: bytes) -> list[bytes]:
    values, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        value = data[at + 4 : at + 4 + size]
        if len(data) < at + 4 or len(value) != size:
            raise InvalidInput(f"Input {name!r}: raw contents of BYTES end within an element")
        values.append(value)
        at += 4 + size
    return values


def response_of(document: Any, *, raw: bool, quoted: bool) -> pb.ModelInferResponse:
    """The model's answer as a message. ``raw``: in the raw form, as the request was. ``quoted``: texts as JSON has
    them, with their quotes, which is what TorchServe's clients take off.

    Raises :class:`ServeError` for an answer that is not of the protocol.
    """
    try:
        response = pb.ModelInferResponse(
            id=str(document.get("id") or ""),
            model_name=str(document["model_name"]),
            model_version=str(document.get("model_version") or ""),
        )
        outputs = document["outputs"]
        raw = raw or any(output["datatype"] in RAW_ONLY for output in outputs)
        for output in outputs:
            kind, data = output["datatype"], output["data"]
            tensor = response.outputs.add(name=str(output["name"]), datatype=kind, shape=output["shape"])
            if kind in _FLOATS:  # JSON has no NaN: it is null there
                data = [math.nan if value is None else value for value in data]
            if kind == "BYTES":
                data = [_text(value, quoted) for value in data]
            if raw:
                response.raw_output_contents.append(_to_raw(kind, data))
            else:
                getattr(tensor.contents, FIELDS[kind]).extend(data)
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ServeError(
            "The model's answer is not one of the Open Inference Protocol; its service envelope must be kservev2",
            detail=f"{type(error).__name__}: {error}",
        ) from None
    return response


def _text(value: Any, quoted: bool) -> bytes:
    text = value if isinstance(value, str) else str(value)
    return f'"{text}"'.encode() if quoted and isinstance(value, str) else text.encode()


def _to_raw(kind: str, data: Sequence[Any]) -> bytes:
    if kind == "BYTES":
        return b"".join(len(value).to_bytes(4, "little") + value for value in data)
    return struct.pack(f"<{len(data)}{_RAW[kind]}", *data)
