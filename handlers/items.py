"""One request's body to named arrays, and named arrays to one answer's body.

An item is a JSON object of named inputs, a bare array where the model has one input, the Open Inference style
(``inputs`` with name, shape, datatype and data), or the bytes of a ``.npy`` or ``.npz`` file. In the first two there
is no batch axis; the others may have one, and then may hold several rows. Whatever does not fit is refused with 400
and a message that says what was expected.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.lib.format import read_array_header_1_0

from mlserve.handler import PredictionError, Response

from .signature import NUMPY, OPEN_INFERENCE, Signature, Tensor, numpy_name, shape_text

NPY, NPZ = b"\x93NUMPY", b"PK\x03\x04"
NPY_TYPE = "application/x-npy"
SHOWN = 8  # names in a message, which a table of 500 columns would fill pages with


class Item(NamedTuple):
    """``arrays`` have the batch axis, of length ``rows``. ``whole`` and ``style`` say how the answer is to look."""

    arrays: dict[str, np.ndarray[Any, Any]]
    rows: int
    whole: bool = False
    style: str = "json"
    id: str = ""


def decode(row: Any, signature: Signature) -> Item:
    """The item in a handler's row. Raises :class:`PredictionError` with status 400."""
    value = body_of(row)
    if isinstance(value, (bytes, bytearray, memoryview)):
        if bytes(value[:6]).startswith((NPY, NPZ)):
            return _from_file(value, signature)
        value = bytes(value)
    if isinstance(value, (bytes, str)) and not _is_text(signature):
        value = _from_json(value, signature.takes())
    elif isinstance(value, bytes):
        value = _text(value)
    if isinstance(value, Mapping) and isinstance(value.get("inputs"), list) and _is_open_inference(value["inputs"]):
        return _from_open_inference(value, signature)
    return _from_named(value, signature)


def body_of(row: Any) -> Any:
    """The part called ``body`` or ``data``; a form's fields as they are: each is an input."""
    if not isinstance(row, Mapping):
        return row
    for part in ("body", "data"):
        if part in row and len(row) == 1:
            return row[part]
    return dict(row)


def _is_text(signature: Signature) -> bool:
    return len(signature.inputs) == 1 and signature.inputs[0].dtype == "str"


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise PredictionError(400, f"The body is no UTF-8 text: {error.reason} at byte {error.start}") from None


def _from_json(value: bytes | str, takes: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise PredictionError(400, f"The body is neither JSON nor a .npy file ({error}): {takes}") from None


def _from_named(value: Any, signature: Signature) -> Item:
    names = [tensor.name for tensor in signature.inputs]
    if not isinstance(value, Mapping):
        if len(names) != 1:
            raise PredictionError(400, f"Expected a JSON object with {', '.join(names)}: {signature.takes()}")
        value = {names[0]: value}
    check_names(value, signature)
    arrays = {}
    for tensor in signature.inputs:
        given = value[tensor.name]
        if isinstance(given, (bytes, bytearray, memoryview, str)):
            given = _part(given if isinstance(given, str) else bytes(given), tensor)
        array = as_array(given, tensor)
        if not tensor.fits(array.shape):
            raise wrong_shape(tensor, array.shape, signature)
        arrays[tensor.name] = array if tensor.axis is None else np.expand_dims(array, tensor.axis)
    return Item(arrays, 1)


def _part(given: bytes | str, tensor: Tensor) -> Any:
    """A form's field: a ``.npy`` file, text for a text input, else JSON."""
    if isinstance(given, bytes) and given.startswith(NPY):
        return _load(given)
    if tensor.dtype == "str":
        return _text(given) if isinstance(given, bytes) else given
    return _from_json(given, f"expected {tensor.text()}")


def check_names(given: Any, signature: Signature) -> None:
    """Raise :class:`PredictionError` unless ``given`` are the names of the inputs."""
    names = [tensor.name for tensor in signature.inputs]
    missing, unknown = [name for name in names if name not in given], [name for name in given if name not in names]
    if missing or unknown:
        raise wrong_names(missing, unknown, "input", signature.takes())


def wrong_names(missing: Sequence[str], unknown: Sequence[str], kind: str, takes: str) -> PredictionError:
    """What to raise for names that are not those of the inputs, or of the features of a table."""
    if any(str(name)[:1] in ("{", "[") or "NUMPY" in str(name)[:6] for name in unknown):
        # curl -d and --data-binary name this type unless told another; the body is then the name of a form's field.
        text = "The body came as application/x-www-form-urlencoded: send content-type: application/json, or"
        return PredictionError(400, f"{text} {NPY_TYPE}: {takes}")
    said = [f"{kind} {name!r} is missing" for name in missing[:SHOWN]]
    said += [f"{len(missing) - SHOWN} more are missing"] if len(missing) > SHOWN else []
    said += [f"unknown {kind} {str(name)[:40]!r}" for name in unknown[:SHOWN]]
    return PredictionError(400, f"{'; '.join(said)}: {takes}")


def as_array(value: Any, tensor: Tensor) -> np.ndarray[Any, Any]:
    """``value`` as the dtype of ``tensor``; what would change a value is refused: 1.5 as an integer, 300 as INT8."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise PredictionError(400, f"Input {tensor.name!r} is ragged: its rows differ in length") from None
    if array.dtype.kind == "O" and tensor.dtype != "str":
        raise PredictionError(400, f"Input {tensor.name!r} is no array of numbers: expected {tensor.text()}")
    if tensor.dtype == "str":
        if array.dtype.kind not in "UO" or not all(isinstance(one, str) for one in array.ravel().tolist()):
            raise PredictionError(400, f"Input {tensor.name!r} holds more than text: expected {tensor.text()}")
        return array.astype(object)
    if not tensor.dtype and array.dtype.kind not in "iufb":
        shown = "text" if array.dtype.kind in "US" else array.dtype.name
        raise PredictionError(400, f"Input {tensor.name!r} is {shown}: expected numbers")
    if not tensor.dtype:  # numbers from JSON are float32, whole ones too: [1, 2] must not mean another dtype than [1.5]
        return array if isinstance(value, np.ndarray) or array.dtype.kind == "b" else array.astype(np.float32)
    return _cast(array, tensor)


def _cast(array: np.ndarray[Any, Any], tensor: Tensor) -> np.ndarray[Any, Any]:
    wanted, given = np.dtype(numpy_name(tensor.dtype)), array.dtype
    if given == wanted:
        return array
    kinds = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}.get(wanted.kind, wanted.kind)
    if array.size and given.kind not in kinds:
        shown = OPEN_INFERENCE.get(given.name, "text" if given.kind == "U" else given.name)
        raise PredictionError(400, f"Input {tensor.name!r} is {shown}: expected {tensor.text()}")
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    if (wanted.kind in "iu" and not np.array_equal(cast, array)) or (wanted.kind == "f" and _overflows(cast, array)):
        raise PredictionError(400, f"Input {tensor.name!r} has values that do not fit: expected {tensor.text()}")
    return cast


def _overflows(cast: np.ndarray[Any, Any], array: np.ndarray[Any, Any]) -> bool:
    """Whether a finite number became infinite: 1e39 as FP32."""
    infinite = np.isinf(cast)
    return bool(infinite.any()) and bool(np.isfinite(array[infinite]).any())


def wrong_shape(tensor: Tensor, shape: tuple[int, ...], signature: Signature) -> PredictionError:
    """What to raise for an input of another shape."""
    return PredictionError(400, f"Input {tensor.name!r} has the shape {shape_text(shape)}: {signature.takes()}")


def _load(data: bytes | bytearray | memoryview) -> Any:
    try:
        if bytes(data[:8]) == NPY + b"\x01\x00":
            return _array(data)
        return np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a header that is no Python literal fails in the tokenizer, one of terabytes in malloc
        raise PredictionError(400, f"The body is a .npy or .npz file that cannot be read: {error}") from None


def _array(data: bytes | bytearray | memoryview) -> np.ndarray[Any, Any]:
    """A ``.npy`` file of version 1.0, which all plain arrays are, in place: ``numpy.load`` takes 0.6 ms for 600 KB.

    What can't be written to stays so: :mod:`mlserve.handlers.batches` copies it, as it joins the items of a batch.
    """
    start = 10 + int.from_bytes(data[8:10], "little")
    shape, fortran, dtype = _header(bytes(data[8:start]))
    if dtype.hasobject:
        raise ValueError("Object arrays are pickled")
    array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, data, start, order="F" if fortran else "C")
    return np.require(array, requirements="A")  # numpy's own files are aligned, others need not be


@lru_cache(maxsize=64)
def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in Fortran's order, dtype. The same clients send the same; reading one takes 0.1 ms."""
    shape, fortran, dtype = read_array_header_1_0(io.BytesIO(data))
    return shape, fortran, dtype


def _from_file(data: bytes | bytearray | memoryview, signature: Signature) -> Item:
    loaded = _load(data)
    if isinstance(loaded, np.ndarray):
        if len(signature.inputs) != 1:
            raise PredictionError(400, f"A .npy file holds one array, send .npz: {signature.takes()}")
        return _from_arrays({signature.inputs[0].name: loaded}, signature, "npy")
    if any(member.compress_type != zipfile.ZIP_STORED for member in loaded.zip.infolist()):
        # A few kilobytes would unpack to gigabytes, beyond every limit on the size of a request.
        raise PredictionError(400, "The body is a compressed .npz file: write it with numpy.savez")
    try:
        arrays = {name: loaded[name] for name in loaded.files}
    except Exception as error:  # as above
        raise PredictionError(400, f"The body is a .npz file that cannot be read: {error}") from None
    return _from_arrays(arrays, signature, "npy")


def _is_open_inference(inputs: list[Any]) -> bool:
    return bool(inputs) and all(isinstance(one, Mapping) and "name" in one and "data" in one for one in inputs)


def _from_open_inference(value: Mapping[str, Any], signature: Signature) -> Item:
    given: dict[str, np.ndarray[Any, Any]] = {}
    known = {tensor.name: tensor for tensor in signature.inputs}
    check_names([str(one["name"]) for one in value["inputs"]], signature)
    for one in value["inputs"]:
        tensor, datatype, shape = known[str(one["name"])], one.get("datatype"), one.get("shape")
        if tensor.dtype and datatype is not None and not _is_of(str(datatype), tensor.dtype):
            raise PredictionError(400, f"Input {tensor.name!r} says datatype {datatype}: expected {tensor.text()}")
        if not tensor.dtype and datatype is not None:
            tensor = tensor._replace(dtype=NUMPY.get(str(datatype), ""))
        array = as_array(one["data"], tensor)
        if shape is not None:
            try:
                array = array.reshape([int(size) for size in shape])
            except (ValueError, TypeError, OverflowError):
                raise PredictionError(
                    400, f"Input {tensor.name!r} has {array.size} values, which do not fill its shape {shape}"
                ) from None
        given[tensor.name] = array
    return _from_arrays(given, signature, "open inference")._replace(id=str(value.get("id") or ""))


def _is_of(datatype: str, dtype: str) -> bool:
    """Whether the Open Inference Protocol's ``datatype`` is ``dtype``, or FP32 for one that NumPy has as float32."""
    return NUMPY.get(datatype) in (dtype, numpy_name(dtype))


def _from_arrays(given: Mapping[str, np.ndarray[Any, Any]], signature: Signature, style: str) -> Item:
    """Arrays of one item, or with the batch axis in all that have one. Of unknown shape: Open Inference has it."""
    check_names(given, signature)
    arrays = {tensor.name: as_array(given[tensor.name], tensor) for tensor in signature.inputs}
    unknown = style == "open inference"
    items = all(
        tensor.fits(arrays[tensor.name].shape) and not (unknown and tensor.shape is None)
        for tensor in signature.inputs
        if tensor.axis is not None
    )
    for tensor in signature.inputs:
        if not tensor.fits(arrays[tensor.name].shape, whole=not items):
            raise wrong_shape(tensor, arrays[tensor.name].shape, signature)
        if items and tensor.axis is not None:
            arrays[tensor.name] = np.expand_dims(arrays[tensor.name], tensor.axis)
    counts = {arrays[one.name].shape[one.axis or 0] for one in signature.inputs if one.axis is not None}
    if len(counts) > 1 or 0 in counts:
        raise PredictionError(400, f"Inputs must have one batch length of 1 or more, got {sorted(counts)}")
    return Item(arrays, counts.pop() if counts else 1, not items, style)


def encode(outputs: Mapping[str, np.ndarray[Any, Any]], item: Item, signature: Signature, accept: str = "") -> Any:
    """The answer to ``item``: outputs as they come from the model, of which the item's own batch axis is dropped."""
    axes = {tensor.name: tensor.axis for tensor in signature.outputs}
    shown = {}
    for name, array in outputs.items():
        axis = axes.get(name, 0)
        shown[name] = array if item.whole or axis is None else np.squeeze(array, axis)
    if item.style == "npy" and NPY_TYPE in accept and len(shown) == 1:
        file = io.BytesIO()
        np.save(file, next(iter(shown.values())), allow_pickle=False)
        return Response(file.getvalue(), NPY_TYPE)
    if item.style == "open inference":
        answer: Any = {"outputs": [_open_output(name, array) for name, array in shown.items()]}
        answer = {"id": item.id, **answer} if item.id else answer
    else:
        answer = {name: _plain(array) for name, array in shown.items()}
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), "application/json")


def _open_output(name: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    datatype = OPEN_INFERENCE.get(array.dtype.name, "BYTES")
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": _plain(array.reshape(-1))}


def _plain(array: np.ndarray[Any, Any]) -> Any:
    """What orjson can write: contiguous arrays of numbers (float32 with as few digits as it has), lists of text."""
    if array.dtype.kind in "OUS":
        return _texts(array.tolist())
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array.item()


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value
