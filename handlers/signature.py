"""What a model takes and gives: named tensors with a dtype, a shape and the axis along which requests are batched.

A runtime reads it from the model's file. It is what requests are checked against, what ``describe`` shows, and what
warm-up makes its inputs from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

OPEN_INFERENCE: Mapping[str, str] = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
    "str": "BYTES",
}
"""NumPy's name of a dtype -> the Open Inference Protocol's. Text is ``str`` and bfloat16 ``bfloat16`` here: NumPy has
no names for them."""

NUMPY: Mapping[str, str] = {theirs: ours for ours, theirs in OPEN_INFERENCE.items()}

BFLOAT16 = "bfloat16"

Dim = int | str | None
"""A length, the name of a length that varies, or ``None`` for one that varies and has no name."""


class WrongOutput(ValueError):
    """A model gave something else than named arrays of as many rows as it got: its fault, or its description's."""


class Tensor(NamedTuple):
    """One input or output.

    ``dtype`` is NumPy's name, ``str`` for text, ``""`` where the file does not say. ``shape`` is the whole one, with
    the batch axis; ``None`` where the file does not say. ``axis`` is the batch axis; ``None`` is for a tensor that all
    items of a batch share, such as a sampling rate. ``features`` names what stands along the last axis,
    if it has names. ``example`` is the shape of an item that the model takes for sure, where ``shape`` leaves it open.
    """

    name: str
    dtype: str = ""
    shape: tuple[Dim, ...] | None = None
    axis: int | None = 0
    features: tuple[str, ...] = ()
    example: tuple[int, ...] | None = None

    @property
    def item_shape(self) -> tuple[Dim, ...] | None:
        """The shape of one item: without the batch axis."""
        if self.shape is None or self.axis is None:
            return self.shape
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]

    def fits(self, shape: Sequence[int], *, whole: bool = False) -> bool:
        """Whether one item, or with ``whole`` a batch, may have ``shape``. The batch's own length may be any."""
        wanted = self.shape if whole else self.item_shape
        if wanted is None:
            return True
        if len(shape) != len(wanted):
            return False
        pairs = enumerate(zip(wanted, shape, strict=True))
        return all(not isinstance(dim, int) or dim == size or (whole and at == self.axis) for at, (dim, size) in pairs)

    def text(self) -> str:
        """``x: FP32 [3, 224, 224]``, one item's shape, for messages."""
        shape = "of any shape" if self.item_shape is None else shape_text(self.item_shape)
        return f"{self.name}: {OPEN_INFERENCE.get(self.dtype, self.dtype) or 'any type'} {shape}"

    def describe(self) -> dict[str, Any]:
        """As the Open Inference Protocol's metadata has it: the whole shape, -1 for what varies."""
        shape = None if self.shape is None else [dim if isinstance(dim, int) else -1 for dim in self.shape]
        found = {"name": self.name, "datatype": OPEN_INFERENCE.get(self.dtype, self.dtype) or None, "shape": shape}
        named = {"features": list(self.features)} if self.features else {}
        return {**found, "batch_axis": self.axis, **named}


class Signature(NamedTuple):
    """All inputs and outputs, in the file's order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def batch(self) -> int | None:
        """The only length of the batch axis that the model takes; ``None`` if it takes any."""
        for tensor in self.inputs:
            if tensor.shape is not None and tensor.axis is not None and isinstance(tensor.shape[tensor.axis], int):
                return int(tensor.shape[tensor.axis])  # type: ignore[arg-type]  # an int, just asked
        return None

    def describe(self) -> dict[str, Any]:
        """For ``describe``: every input and output."""
        return {"inputs": [one.describe() for one in self.inputs], "outputs": [one.describe() for one in self.outputs]}

    def takes(self) -> str:
        """``the model takes x: FP32 [3, 224, 224]``, for messages."""
        return "the model takes " + ", ".join(one.text() for one in self.inputs)


def numpy_name(dtype: str) -> str:
    """What NumPy calls the arrays of ``dtype``: bfloat16 comes and goes as float32, which holds all of it."""
    return "float32" if dtype == BFLOAT16 else dtype


def shape_text(shape: Sequence[Dim]) -> str:
    """``[3, ?, width]``."""
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"


def with_batch_axis(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Signature:
    """Find the batch axis of every tensor by the names and lengths of its dimensions.

    The batch is the first dimension of the first input that has one. If that has a name, it is the same dimension of
    the other tensors wherever it stands (a recurrent state is ``[2, batch, 128]``). A tensor without it shares its
    value between all items, unless its first dimension varies or is of the batch's fixed length.
    """
    first = next((one.shape for one in inputs if one.shape), None)
    batch = first[0] if first else None

    def placed(tensor: Tensor) -> Tensor:
        if tensor.shape is None:
            return tensor
        if isinstance(batch, str) and batch in tensor.shape:
            return tensor._replace(axis=tensor.shape.index(batch))
        varies = bool(tensor.shape) and not isinstance(tensor.shape[0], int)
        same = bool(tensor.shape) and isinstance(batch, int) and tensor.shape[0] == batch
        return tensor._replace(axis=0 if varies or same else None)

    return Signature(tuple(map(placed, inputs)), tuple(map(placed, outputs)))


def declared(section: Any, where: str) -> tuple[Tensor, ...]:
    """The tensors of ``inputs:`` or ``outputs:`` in model-config.yaml, for files that do not say.

    ``{x: {dtype: float32, shape: [-1, 3, 224, 224]}}``; the shape is the whole one, -1 where it varies, ``batch_axis``
    is 0 unless given. Raises ``ValueError`` that names the key.
    """
    if not isinstance(section, Mapping):
        raise ValueError(f"{where} in model-config.yaml must map names to dtype and shape, got {section!r}")
    found = []
    for name, options in section.items():
        options = options if isinstance(options, Mapping) else {"dtype": options}
        dtype, shape, axis = str(options.get("dtype") or ""), options.get("shape"), options.get("batch_axis", 0)
        dtype = NUMPY.get(dtype.upper(), dtype)
        if dtype and dtype not in OPEN_INFERENCE:
            raise ValueError(f"{where}: {name}: unknown dtype {dtype!r}; known are {', '.join(OPEN_INFERENCE)}")
        if shape is not None and not (isinstance(shape, list) and all(isinstance(dim, int) for dim in shape)):
            raise ValueError(f"{where}: {name}: shape must be a list of integers, -1 for what varies, got {shape!r}")
        whole = None if shape is None else tuple(dim if dim >= 0 else None for dim in shape)
        if axis is not None and (not isinstance(axis, int) or (whole is not None and not 0 <= axis < len(whole))):
            raise ValueError(f"{where}: {name}: batch_axis {axis!r} is no axis of shape {shape}")
        found.append(Tensor(str(name), dtype, whole, axis))
    return tuple(found)
