"""One element of a handler's answer -> bytes and the content type they would have."""

from __future__ import annotations

import sys
from typing import Any, Final

from mlserve.worker import jsontext
from mlserve.worker.link import Buffer

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
BINARY: Final = "application/octet-stream"


class UnsupportedOutput(Exception):
    """An element that has no encoding; the message names its type."""


def encode_strictly(element: Any) -> tuple[Buffer, str]:
    """As :func:`encode_element`, for the types that TorchServe knows: no arrays, no views."""
    if isinstance(element, (str, bytes, bytearray)) or _is_tensor(element):
        return encode_element(element)
    return _json(element, plain=False)


def encode_element(element: Any) -> tuple[Buffer, str]:
    """Bytes of ``element`` and its natural content type.

    ``str`` as UTF-8, bytes-likes as they are, ``torch.Tensor`` as ``torch.save`` writes it, NumPy arrays and scalars as
    JSON lists and numbers, anything else as indented JSON. Raises :class:`UnsupportedOutput` for what JSON cannot hold.
    """
    kind = type(element)
    if kind is bytes:
        return element, BINARY
    if kind is dict or kind is list:
        return _json(element)
    if isinstance(element, str):
        try:
            return element.encode(), TEXT
        except UnicodeEncodeError as error:
            raise UnsupportedOutput(f"Output text cannot be encoded as UTF-8: {error.reason}") from None
    if isinstance(element, (bytes, bytearray)):
        return element, BINARY
    if isinstance(element, memoryview):
        return (element.cast("B") if element.contiguous else element.tobytes()), BINARY
    if _is_tensor(element):
        return _saved(element), BINARY
    tolist = getattr(element, "tolist", None)
    return _json(tolist() if tolist is not None else element)


def _is_tensor(element: Any) -> bool:
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)  # a handler that returns one has imported torch
    return tensor is not None and isinstance(element, tensor)


def _json(element: Any, plain: bool = True) -> tuple[bytes, str]:
    try:
        return jsontext.dumps(element, plain).encode("ascii"), JSON
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedOutput(f"Unsupported model output data type {type(element).__name__}: {error}") from None


def _saved(tensor: Any) -> memoryview:
    import io

    buffer = io.BytesIO()
    sys.modules["torch"].save(tensor, buffer)  # an import would have whoever compiles this read all of torch
    return buffer.getbuffer()
