"""Service envelopes: the form that an orchestrator wraps requests and answers in, taken off before the handler.

An envelope calls ``handle`` with the inputs of all requests of a batch in one flat list, and splits the answers up
again. ``body`` hands on the raw values; ``json`` and ``kserve`` know ``{"instances": [...]}``, ``kservev2`` knows the
tensors of the Open Inference Protocol. The names and the forms are TorchServe's (``service_envelope``).
"""

from __future__ import annotations

import base64
import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from mlserve.handler import PredictionError


def enclosed(name: str, handle: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``handle`` inside the envelope called ``name``. Raises ``ValueError`` if there is no such envelope."""
    if name not in ENVELOPES:
        raise ValueError(f"There is no service envelope {name!r}; known: {', '.join(ENVELOPES)}")
    return ENVELOPES[name](handle).handle


class BaseEnvelope(ABC):
    """Derive from it to make an envelope: ``parse_input`` unwraps a batch, ``format_output`` wraps the answers."""

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        self._handle_fn = handle_fn
        self.context: Any = None
        self._lengths: list[int] = []
        self._refused: dict[int, PredictionError] = {}

    def handle(self, data: Any, context: Any) -> Any:
        """Unwrap, call the handler, wrap. A coroutine of the handler is awaited in between.

        What a call keeps for wrapping is on a copy: while one call awaits, the next may begin.
        """
        call = copy.copy(self)
        call.context = context
        if data:
            data = call.parse_input(data)
            if not data and call._lengths:  # of no request is anything left to ask the handler
                return call.format_output([])
        results = call._handle_fn(data, context)
        if hasattr(results, "__await__"):
            return call._later(results)
        return call.format_output(results) if results else results

    async def _later(self, results: Any) -> Any:
        results = await results
        return self.format_output(results) if results else results

    @abstractmethod
    def parse_input(self, data: list[Any]) -> list[Any]:
        """The handler's inputs of the rows of a batch."""

    @abstractmethod
    def format_output(self, data: list[Any]) -> list[Any]:
        """One answer per row of the batch, of the handler's outputs."""

    def _flat(self, data: list[Any], parse: Callable[[int, Any], list[Any]]) -> list[Any]:
        """The inputs of all rows, as ``parse`` finds them by index and row. A row it refuses is answered with that.

        The context is told which request each is of: the handler asks its headers whether it is to be explained.
        """
        groups: list[list[Any]] = []
        self._refused = {}
        for index, row in enumerate(data):
            try:
                groups.append(parse(index, row))
            except PredictionError as error:
                self._refused[index] = error
                groups.append([])
        self._lengths = [len(group) for group in groups]
        if self.context is not None:
            self.context.requests_of_items = [index for index, group in enumerate(groups) for _ in group]
        return [item for group in groups for item in group]

    def _groups(self, outputs: Any) -> list[Any]:
        """The outputs of each request; instead of them the refusal of an output, since half an answer is none.

        The answer to a single request may have any number of outputs. Raises ``ValueError`` where several requests
        were given and it cannot be told which output is whose.
        """
        if len(self._lengths) == 1 and not self._refused and isinstance(outputs, list):
            self._lengths = [len(outputs)]
        if not isinstance(outputs, list) or len(outputs) != sum(self._lengths):
            raise ValueError(
                f"The handler was given {sum(self._lengths)} inputs and returned "
                f"{f'{len(outputs)} outputs' if isinstance(outputs, list) else type(outputs).__name__}"
            )
        groups: list[Any] = []
        position = 0
        for index, length in enumerate(self._lengths):
            group = outputs[position : position + length]
            failed = next((item for item in group if isinstance(item, Exception)), None)
            groups.append(self._refused.get(index) or failed or group)
            position += length
        return groups

    def _explains(self, index: int) -> bool:
        return self.context is not None and self.context.get_request_header(index, "explain") == "True"


def payload(row: Any) -> Any:
    """What a row carries: its ``data`` part, its ``body``, or the row itself."""
    return row.get("data") or row.get("body") or row


def document(row: Any, key: str) -> dict[str, Any]:
    """The JSON object of a row, which must have ``key``. Raises :class:`PredictionError` with status 400."""
    value = payload(row)
    if isinstance(value, (bytes, bytearray, memoryview, str)):
        try:
            value = json.loads(bytes(value) if isinstance(value, memoryview) else value)
        except (ValueError, RecursionError) as error:
            raise PredictionError(400, f"The request body is not JSON: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get(key), list):
        raise PredictionError(400, f'The request body must be a JSON object with a list "{key}"')
    return value


class BodyEnvelope(BaseEnvelope):
    """Gives the handler each request's ``data`` or ``body`` instead of the row around it."""

    def parse_input(self, data: list[Any]) -> list[Any]:
        """One value per row."""
        return [row.get("data") or row.get("body") for row in data]

    def format_output(self, data: list[Any]) -> list[Any]:
        """The outputs as they are."""
        return data


class JSONEnvelope(BaseEnvelope):
    """``{"instances": [...]}`` in, the text ``{"predictions": [...]}`` out; ``{"b64": text}`` stands for bytes."""

    def parse_input(self, data: list[Any]) -> list[Any]:
        """The instances of all rows."""
        return self._flat(data, lambda _, row: [_binary(item) for item in document(row, "instances")["instances"]])

    def format_output(self, data: list[Any]) -> list[Any]:
        """One JSON text per row."""
        return [
            group if isinstance(group, Exception) else json.dumps({"predictions": group})
            for group in self._groups(data)
        ]


def _binary(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    if list(item) == ["b64"]:
        return _decoded(item["b64"])
    return {
        key: _decoded(value["b64"]) if isinstance(value, dict) and list(value) == ["b64"] else value
        for key, value in item.items()
    }


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text)
    except (ValueError, TypeError) as error:
        raise PredictionError(400, f'"b64" must be a text of base64: {error}') from None


class KServeEnvelope(BaseEnvelope):
    """KServe v1: ``{"instances": [...]}`` in, ``{"predictions": [...]}`` or ``{"explanations": [...]}`` out."""

    def parse_input(self, data: list[Any]) -> list[Any]:
        """The instances of all rows."""
        return self._flat(data, lambda _, row: list(document(row, "instances")["instances"]))

    def format_output(self, data: list[Any]) -> list[Any]:
        """One object per row."""
        return [
            group
            if isinstance(group, Exception)
            else {"explanations" if self._explains(index) else "predictions": group}
            for index, group in enumerate(self._groups(data))
        ]


_DTYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip
_DATATYPES = {dtype: datatype for datatype, dtype in _DTYPES.items()}


class KServev2Envelope(BaseEnvelope):
    """KServe v2: one input tensor is one row of the handler's batch, one output is the tensor of that name."""

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        super().__init__(handle_fn)
        self._names: list[list[str]] = []
        self._ids: list[str] = []

    def parse_input(self, data: list[Any]) -> list[Any]:
        """The input tensors of all rows, each ``{name, shape, datatype, data}`` with ``data`` nested to ``shape``."""
        self._names, self._ids = [[] for _ in data], ["" for _ in data]
        return self._flat(data, lambda index, row: self._tensors(index, document(row, "inputs")))

    def _tensors(self, index: int, entry: dict[str, Any]) -> list[dict[str, Any]]:
        tensors = [_tensor(tensor) for tensor in entry["inputs"]]
        given = str(entry.get("id") or "")
        self._ids[index] = given if given.strip() else ""
        self._names[index] = [tensor["name"] for tensor in tensors]
        return tensors

    def format_output(self, data: list[Any]) -> list[Any]:
        """One response object per row."""
        return [
            group if isinstance(group, Exception) else self._response(index, group)
            for index, group in enumerate(self._groups(data))
        ]

    def _response(self, index: int, outputs: list[Any]) -> dict[str, Any]:
        model = (self.context.manifest or {}).get("model", {})
        names = self._names[index]
        return {
            "id": self._ids[index] or self.context.get_request_id(index),
            "model_name": model.get("modelName"),
            "model_version": model.get("modelVersion"),
            "outputs": [
                _output(output, names[number] if number < len(names) else f"output-{number}")
                for number, output in enumerate(outputs)
            ],
        }


def _tensor(tensor: Any) -> dict[str, Any]:
    import numpy as np

    try:
        values = tensor["data"]
        if tensor["datatype"] == "BYTES":
            nested = values[0]
        else:
            nested = np.array(values).reshape(tuple(tensor["shape"])).tolist()
        return {**tensor, "name": tensor["name"], "data": nested}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        message = f"An input tensor needs name, shape, datatype and data that fit together: {error!r}"
        raise PredictionError(400, message) from None


def _output(output: Any, name: str) -> dict[str, Any]:
    """The output tensor, flat; text is BYTES. Raises ``ValueError`` for types that the protocol has no name for."""
    import numpy as np

    values = np.array(output).flatten()
    datatype = "BYTES" if values.dtype.kind in "OUS" else _DATATYPES.get(str(values.dtype))
    if datatype is None:
        raise ValueError(f"The output {name} has the type {values.dtype}, for which KServe v2 has no name")
    return {"name": name, "datatype": datatype, "data": values.tolist(), "shape": list(values.shape)}


ENVELOPES: dict[str, type[BaseEnvelope]] = {
    "body": BodyEnvelope,
    "json": JSONEnvelope,
    "kserve": KServeEnvelope,
    "kservev2": KServev2Envelope,
}
