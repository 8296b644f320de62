"""TensorRT engines (``.plan``, ``.engine``): what they take, which profile runs a batch, why one is refused.

Whatever touches the GPU is behind :class:`Engine`, in ``tensorrt_device``; this module needs neither TensorRT nor a
GPU. An engine has profiles: ranges of shapes that it was tuned for. A batch beyond all of them is cut, one below all
of them filled up with copies of its last row.
"""

from __future__ import annotations

import copy
import importlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from mlserve.handler import PredictionError

from ..copies import copied
from ..signature import Signature, Tensor, shape_text, with_batch_axis
from . import Source

if TYPE_CHECKING:
    from . import Arrays

logger = logging.getLogger(__name__)

TYPES: Mapping[str, str] = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""TensorRT's name of a dtype -> NumPy's."""

Shape = tuple[int, ...]


class Binding(NamedTuple):
    """One input or output: ``dtype`` is TensorRT's name, a length of -1 varies, ``host`` is for shape tensors."""

    name: str
    is_input: bool
    dtype: str
    shape: Shape
    host: bool = False


Profile = Mapping[str, tuple[Shape, Shape]]
"""Input -> its smallest and its largest shape."""


class Engine(Protocol):
    """A deserialized engine on its GPU: all that this module knows of TensorRT and CUDA."""

    version: str
    device: str
    bindings: Sequence[Binding]
    profiles: Sequence[Profile]

    def run(self, profile: int, inputs: Arrays) -> Arrays:
        """The outputs for contiguous inputs whose shapes the profile allows."""


class EngineRefused(Exception):
    """TensorRT does not load a file; the arguments are what it logged."""


class TensorRtModel:
    """An engine as a runtime."""

    wants_warm_up = True  # its first call sets the device up

    def __init__(self, source: Source, load: Callable[[Path, int], Engine]) -> None:
        if source.gpu is None:
            raise ValueError(
                f"{source.path.name} is an engine for a GPU, and this worker has none: see gpu.ids in the settings and "
                "deviceType in model-config.yaml, or serve the ONNX file that it was built from"
            )
        try:
            self._engine = load(source.path, source.gpu)
        except EngineRefused as error:
            raise ValueError(refusal(source.path.name, [str(line) for line in error.args])) from error
        self.name = f"tensorrt {self._engine.version}, {self._engine.device}, profiles: {len(self._engine.profiles)}"
        self._profiles = list(self._engine.profiles)
        self.signature = signature_of(self._engine.bindings, self._profiles)
        logger.info("%s: %s", source.path.name, self.name)

    def __copy__(self) -> TensorRtModel:
        return copied(self, _engine=copy.copy(self._engine))

    def check(self, arrays: Arrays) -> None:
        """Raise :class:`PredictionError` for an item whose shape no profile allows, whatever the batch."""
        if not self._fitting(arrays):
            raise PredictionError(400, f"{self._shapes(arrays)}: the engine was built for {self._ranges()}")

    def infer(self, inputs: Arrays) -> Arrays:
        """See :class:`Runtime`."""
        rows = self._rows(inputs)
        fitting = self._fitting(inputs)
        if not fitting:
            raise ValueError(f"{self._shapes(inputs)}: the engine was built for {self._ranges()}")
        index, size = chosen(rows, [(index, *self._limits(index)) for index in fitting])
        if size == rows:
            return self._engine.run(index, {name: np.ascontiguousarray(array) for name, array in inputs.items()})
        first = self._engine.run(index, self._part(inputs, 0, size))
        if size > rows:
            return self._cut(first, rows)
        rest = self.infer(self._part(inputs, size, rows - size))
        axes = {one.name: one.axis for one in self.signature.outputs}
        for name, array in first.items():
            if axes[name] is None and not np.array_equal(array, rest[name]):
                raise ValueError(
                    f"Output {name!r} has no batch axis, and differs between the runs that {rows} rows need: set "
                    f"batchSize to {size} in model-config.yaml"
                )
        return {
            name: array if (axis := axes[name]) is None else np.concatenate([array, rest[name]], axis)
            for name, array in first.items()
        }

    def _rows(self, inputs: Arrays) -> int:
        return next((inputs[one.name].shape[one.axis] for one in self.signature.inputs if one.axis is not None), 1)

    def _fitting(self, inputs: Arrays) -> list[int]:
        """The profiles that allow every dimension but the batch."""
        return [index for index, profile in enumerate(self._profiles) if self._allows(profile, inputs)]

    def _allows(self, profile: Profile, inputs: Arrays) -> bool:
        for one in self.signature.inputs:
            low, high = profile[one.name]
            sizes = inputs[one.name].shape
            if len(sizes) != len(low):
                return False
            ranges = enumerate(zip(low, sizes, high, strict=True))
            if not all(at == one.axis or least <= size <= most for at, (least, size, most) in ranges):
                return False
        return True

    def _limits(self, index: int) -> tuple[int, int]:
        """The smallest and largest batch of a profile."""
        for one in self.signature.inputs:
            if one.axis is not None:
                low, high = self._profiles[index][one.name]
                return low[one.axis], high[one.axis]
        return 1, 1

    def _part(self, inputs: Arrays, start: int, count: int) -> Arrays:
        """``count`` rows from ``start``; beyond the last one its copies."""
        rows = np.minimum(np.arange(start, start + count), self._rows(inputs) - 1)
        return {
            one.name: np.ascontiguousarray(
                inputs[one.name] if one.axis is None else np.take(inputs[one.name], rows, one.axis)
            )
            for one in self.signature.inputs
        }

    def _cut(self, outputs: Arrays, rows: int) -> Arrays:
        axes = {one.name: one.axis for one in self.signature.outputs}
        return {
            name: array if (axis := axes[name]) is None else np.take(array, np.arange(rows), axis)
            for name, array in outputs.items()
        }

    def _shapes(self, arrays: Arrays) -> str:
        return ", ".join(f"Input {one.name!r} has the shape {self._item(one, arrays)}" for one in self.signature.inputs)

    def _item(self, tensor: Tensor, arrays: Arrays) -> str:
        return shape_text([size for at, size in enumerate(arrays[tensor.name].shape) if at != tensor.axis])

    def _ranges(self) -> str:
        """``x: [3, 128..512]; or x: [3, 640]``, one item's shapes, for messages."""
        texts = [", ".join(_range(one, profile) for one in self.signature.inputs) for profile in self._profiles]
        return "; or ".join(dict.fromkeys(texts))


def _range(tensor: Tensor, profile: Profile) -> str:
    pairs = enumerate(zip(*profile[tensor.name], strict=True))
    dims = [str(low) if low == high else f"{low}..{high}" for at, (low, high) in pairs if at != tensor.axis]
    return f"{tensor.name}: {shape_text(dims)}"


def open_model(source: Source) -> TensorRtModel:
    """See :func:`mlserve.handlers.formats.open_model`."""

    def load(path: Path, gpu: int) -> Engine:
        found: Any = importlib.import_module(".tensorrt_device", __package__)
        engine: Engine = found.load_engine(path, gpu)
        return engine

    return TensorRtModel(source, load)


def signature_of(bindings: Sequence[Binding], profiles: Sequence[Profile]) -> Signature:
    """Inputs and outputs. Raises ``ValueError`` for what cannot be sent as an array of numbers."""
    for one in bindings:
        if one.host:
            raise ValueError(f"The engine wants {one.name} on the host, as a shape: build it with fixed values for it")
        if one.dtype not in TYPES:
            raise ValueError(f"The engine's {one.name} is {one.dtype}, which NumPy lacks: build it with float32 there")

    def tensor(one: Binding) -> Tensor:
        varying = [
            {length for profile in profiles for length in lengths(profile, one.name, at)}
            for at in range(len(one.shape))
        ]
        shape = [
            size if size >= 0 else next(iter(seen)) if len(seen) == 1 else None
            for size, seen in zip(one.shape, varying, strict=True)
        ]
        return Tensor(one.name, TYPES[one.dtype], tuple(shape))

    found = with_batch_axis(
        [tensor(one) for one in bindings if one.is_input], [tensor(one) for one in bindings if not one.is_input]
    )
    return found._replace(inputs=tuple(with_example(one, profiles) for one in found.inputs))


def with_example(tensor: Tensor, profiles: Sequence[Profile]) -> Tensor:
    """``tensor`` with the smallest item of the first profile: one of length 1 may be outside all of them."""
    if not profiles:
        return tensor
    smallest, _ = profiles[0][tensor.name]
    return tensor._replace(example=tuple(size for at, size in enumerate(smallest) if at != tensor.axis))


def lengths(profile: Profile, name: str, axis: int) -> tuple[int, ...]:
    """The smallest and the largest length of one dimension; none for an output."""
    return (profile[name][0][axis], profile[name][1][axis]) if name in profile else ()


def chosen(rows: int, limits: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
    """The profile to run first, and how many rows with it. ``limits`` are (profile, smallest, largest batch).

    The profile with the least room takes all rows. Where none does: as many as the largest takes, or if all want more,
    as few as one of them wants.
    """
    whole = [(high, index) for index, low, high in limits if low <= rows <= high]
    if whole:
        return min(whole)[1], rows
    below = [(high, index) for index, low, high in limits if high < rows]
    if below:
        high, index = max(below)
        return index, high
    low, index = min((low, index) for index, low, _ in limits)
    return index, low


def refusal(name: str, lines: Sequence[str]) -> str:
    """Why TensorRT does not load a file, from what it logged."""
    text = "\n".join(lines)
    if found := re.search(r"expecting library version ([\d.]+) got ([\d.]+)", text):
        here, there = found[1].rstrip("."), found[2].rstrip(".")
        return f"{name} was built by TensorRT {there}, here is {here}: build it anew, or pip install tensorrt=={there}"
    if found := re.search(
        r"Version tag does not match.*?Current Version: (\d+), Serialized Engine Version: (\d+)", text
    ):
        return (
            f"{name} was built by another version of TensorRT (format {found[2]}, here is {found[1]}): build it anew, "
            "or install the version that built it"
        )
    if found := re.search(r"expecting compute ([\d.]+) got compute ([\d.]+)", text):
        here, there = found[1].rstrip("."), found[2].rstrip(".")
        return f"{name} was built on a GPU of compute capability {there}, here is {here}: build it on such a GPU"
    return f"{name} is not an engine that TensorRT can load ({lines[-1] if lines else 'it does not say why'})"
