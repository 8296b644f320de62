"""Items to as few calls of a runtime as they allow, and its outputs back to items.

Items that differ in a dimension that may vary, or in a value that a whole batch shares, cannot stand in one call;
those that can are concatenated along the batch axis. A model of a fixed batch length gets exactly that many rows, the
last call filled up with copies of its last row. A call that fails by what it was given is made again for each of its
items alone, and those that the model does not take are refused (see :mod:`mlserve.handlers.misfits`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .items import Item
from .misfits import Misfits
from .signature import Signature, Tensor, WrongOutput

Arrays = dict[str, np.ndarray[Any, Any]]


def run(
    infer: Callable[[Arrays], Arrays], signature: Signature, items: Sequence[Item], misfits: Misfits | None = None
) -> list[Any]:
    """Each item's outputs, with the batch axis; given ``misfits``, the refusal of one that the model does not take."""
    groups: dict[Any, list[int]] = {}
    for index, item in enumerate(items):
        # A model that takes one row is called for each anyway; what it gives beside rows is then the item's own.
        key = index if signature.batch == 1 else _key(item, signature)
        groups.setdefault(key, []).append(index)
    results: dict[int, Any] = {}
    for members in groups.values():
        together = [items[index] for index in members]
        results.update(zip(members, _answers(infer, signature, together, misfits), strict=True))
    return [results[index] for index in range(len(items))]


def _answers(
    infer: Callable[[Arrays], Arrays], signature: Signature, items: Sequence[Item], misfits: Misfits | None
) -> list[Any]:
    """:func:`run` for items that share a call."""
    counts = [one.rows for one in items]
    try:
        outputs = _infer(infer, signature, _joined([one.arrays for one in items], signature), sum(counts))
    except Exception as error:
        if misfits is None or not misfits.concerns(error, items[0]):
            raise
        if len(items) > 1:
            return [answer for one in items for answer in _answers(infer, signature, [one], misfits)]
        return [misfits.refusal(error, items[0])]
    if misfits is not None:
        misfits.answered(items[0])
    return list(_parted(outputs, signature.outputs, counts))


def _key(item: Item, signature: Signature) -> Any:
    """What must be equal for two items to share a call."""
    found: list[Any] = []
    for tensor in signature.inputs:
        array = item.arrays[tensor.name]
        if tensor.axis is None:
            found.append((array.shape, array.tobytes() if array.dtype != object else tuple(array.ravel().tolist())))
        else:
            found.append((array.dtype, array.shape[: tensor.axis], array.shape[tensor.axis + 1 :]))
    return tuple(found)


def _joined(given: Sequence[Arrays], signature: Signature) -> Arrays:
    if len(given) == 1:
        return {name: _own(array) for name, array in given[0].items()}
    return {
        one.name: _own(given[0][one.name])
        if one.axis is None
        else np.concatenate([arrays[one.name] for arrays in given], axis=one.axis)
        for one in signature.inputs
    }


def _own(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``array`` for a runtime to do with as it likes: what lies in a request's body is read-only, and ends with it."""
    return array if array.flags.writeable else array.copy()


def _infer(infer: Callable[[Arrays], Arrays], signature: Signature, inputs: Arrays, rows: int) -> Arrays:
    size = signature.batch
    if size is None or size == rows:
        return infer(inputs)
    calls = []
    for start in range(0, rows, size):
        part = {one.name: _slice(inputs[one.name], one, start, size) for one in signature.inputs}
        outputs = infer(part)
        for name, array in outputs.items():
            _check(name, array, _axis(signature.outputs, name), size)
        calls.append(outputs)
    return {name: _stacked(name, [one[name] for one in calls], signature, rows) for name in calls[0]}


def _stacked(name: str, arrays: Sequence[np.ndarray[Any, Any]], signature: Signature, rows: int) -> Any:
    """One output of several calls, without the rows that only filled the last one up.

    Raises :class:`WrongOutput` where the calls differ in an output that all rows are to share.
    """
    axis = _axis(signature.outputs, name)
    if axis is not None:
        return np.take(np.concatenate(arrays, axis=axis), np.arange(rows), axis=axis)
    if any(not np.array_equal(arrays[0], other, equal_nan=arrays[0].dtype.kind == "f") for other in arrays[1:]):
        raise WrongOutput(
            f"Output {name!r} has no batch axis, and differs between the calls that {rows} rows need: set batchSize to "
            f"{signature.batch} in model-config.yaml"
        )
    return arrays[0]


def _check(name: str, array: np.ndarray[Any, Any], axis: int | None, rows: int) -> None:
    """Raise :class:`WrongOutput` for an output that has another number of rows."""
    if axis is not None and (axis >= array.ndim or array.shape[axis] != rows):
        raise WrongOutput(
            f"Output {name!r} has the shape {list(array.shape)} for {rows} items: axis {axis} is not the batch. "
            f"Say which is in model-config.yaml, outputs: {{{name}: {{batch_axis: N}}}}, null if all share it"
        )


def _slice(array: np.ndarray[Any, Any], tensor: Tensor, start: int, size: int) -> np.ndarray[Any, Any]:
    if tensor.axis is None:
        return array
    rows = np.minimum(np.arange(start, start + size), array.shape[tensor.axis] - 1)
    return np.asarray(np.take(array, rows, axis=tensor.axis))


def _axis(tensors: Sequence[Tensor], name: str) -> int | None:
    return next((one.axis for one in tensors if one.name == name), 0)


def _parted(outputs: Arrays, tensors: Sequence[Tensor], counts: Sequence[int]) -> list[Arrays]:
    """The rows of each item. Raises :class:`WrongOutput` for an output that has another number of rows."""
    total, edges = sum(counts), np.cumsum(counts)[:-1]
    parted: list[Arrays] = [{} for _ in counts]
    for name, array in outputs.items():
        axis = _axis(tensors, name)
        _check(name, array, axis, total)
        pieces = [array] * len(counts) if axis is None else np.split(array, edges, axis=axis)
        for one, piece in zip(parted, pieces, strict=True):
            one[name] = piece
    return parted
