"""CUDA graphs: a batch is one launch instead of one per operator, for networks whose kernels are shorter than those.

A graph has fixed shapes and fixed memory. So warm-up captures one for each of its batch sizes; a request's batch is
copied into the smallest that holds it, the rest of whose rows repeat its last, and their outputs are cut off. What fits
none runs as it would without graphs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..signature import Signature, Tensor

if TYPE_CHECKING:
    Call = Callable[[Sequence[torch.Tensor]], dict[str, torch.Tensor]]

logger = logging.getLogger(__name__)

RUNS_BEFORE = 3  # on a stream of its own: libraries choose algorithms and allocate in their first calls


class Captured(NamedTuple):
    """``replay`` computes ``outputs`` from what ``inputs`` hold; all keep their memory."""

    inputs: list[torch.Tensor]
    outputs: dict[str, torch.Tensor]
    replay: Callable[[], object]


class CudaGraphs:
    """The graphs of one model, by shape and batch size. All share memory: outputs hold until the next replay.

    ``record`` makes one of a call and its inputs.
    """

    def __init__(
        self, device: torch.device, record: Callable[[Call, list[torch.Tensor]], Captured] | None = None
    ) -> None:
        self._record = record or Recorder(device)
        self._captured: dict[Any, dict[int, Captured]] = {}

    def capture(self, call: Call, tensors: list[torch.Tensor], signature: Signature) -> None:
        """Make the graph of this batch size, unless there is one. Raises ``ValueError`` for a model that has none."""
        size, known = rows(tensors, signature.inputs), self._captured.setdefault(_key(tensors, signature.inputs), {})
        if size in known:
            return
        captured = self._record(call, [tensor.clone() for tensor in tensors])
        for name, output in captured.outputs.items():
            axis = _axis(signature, name)
            if axis is not None and (axis >= output.dim() or output.shape[axis] != size):
                raise ValueError(
                    f"torch: cuda_graphs: output {name!r} has the shape {list(output.shape)} for {size} items: axis "
                    f"{axis} is not the batch, see outputs: in model-config.yaml"
                )
        known[size] = captured
        logger.info("captured a CUDA graph of %d rows", size)

    def run(self, tensors: list[torch.Tensor], signature: Signature) -> dict[str, torch.Tensor] | None:
        """The outputs by the smallest graph that holds the batch; ``None`` where there is none."""
        count = rows(tensors, signature.inputs)
        known = self._captured.get(_key(tensors, signature.inputs), {})
        size = min((one for one in known if one >= count), default=None)
        if size is None:
            return None
        captured = known[size]
        for place, given, one in zip(captured.inputs, tensors, signature.inputs, strict=True):
            fill(place, given, one.axis)
        captured.replay()
        found = {}
        for name, output in captured.outputs.items():
            axis = _axis(signature, name)
            found[name] = output if axis is None else output.narrow(axis, 0, count)
        return found


def rows(tensors: Sequence[torch.Tensor], inputs: Sequence[Tensor]) -> int:
    """The length of the batch; 1 where all is shared."""
    for tensor, one in zip(tensors, inputs, strict=True):
        if one.axis is not None:
            return tensor.shape[one.axis]
    return 1


def fill(place: torch.Tensor, given: torch.Tensor, axis: int | None) -> None:
    """Copy a batch into the memory of a graph that may have more rows, which become copies of the last."""
    if axis is None:
        place.copy_(given)
        return
    count, size = given.shape[axis], place.shape[axis]
    place.narrow(axis, 0, count).copy_(given)
    if size > count:
        place.narrow(axis, count, size - count).copy_(given.narrow(axis, count - 1, 1))


class Recorder:
    """Captures on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, call: Call, inputs: list[torch.Tensor]) -> Captured:
        """See :class:`CudaGraphs`."""
        try:
            with torch.cuda.device(self._device):
                return self._captured(call, inputs)
        except RuntimeError as error:
            raise ValueError(
                f"torch: cuda_graphs in model-config.yaml: the model cannot be captured, remove it ({error})"
            ) from error

    def _captured(self, call: Call, inputs: list[torch.Tensor]) -> Captured:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(RUNS_BEFORE):
                call(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = call(inputs)
        self._pool = graph.pool()
        return Captured(inputs, outputs, graph.replay)


def _key(tensors: Sequence[torch.Tensor], inputs: Sequence[Tensor]) -> Any:
    """dtypes and shapes without the batch."""
    return tuple(
        (tensor.dtype, tuple(size for at, size in enumerate(tensor.shape) if at != one.axis))
        for tensor, one in zip(tensors, inputs, strict=True)
    )


def _axis(signature: Signature, name: str) -> int | None:
    return next((one.axis for one in signature.outputs if one.name == name), 0)
