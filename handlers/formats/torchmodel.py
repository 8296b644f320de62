"""What all torch models share: device, precision, tensors in and out, CUDA graphs, batch sizes to warm up."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..runtimes import worker_device
from ..signature import BFLOAT16, Signature, Tensor, WrongOutput
from .cuda_graphs import CudaGraphs
from .torchoptions import Options

if TYPE_CHECKING:
    from . import Arrays, Source

logger = logging.getLogger(__name__)

with warnings.catch_warnings():
    # A .npy body is read-only memory; no model is expected to write into its input. Torch warns once in a process: of
    # this. Filters around each call would be those of all threads.
    warnings.simplefilter("ignore")
    torch.from_numpy(np.frombuffer(bytes(4), np.float32))


class TorchModel:
    """A callable of tensors as a :class:`Runtime`. ``signature.inputs`` are its arguments, in order."""

    takes_bfloat16 = True  # as float32, which becomes it
    unchecked = False
    input_errors = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)  # the last is torch.export's

    def __init__(
        self, name: str, call: Callable[..., Any], signature: Signature, source: Source, options: Options
    ) -> None:
        self.signature = signature
        self.call = call
        self.options = options
        self._device = worker_device(source.gpu)
        self._graphs = CudaGraphs(self._device) if options.cuda_graphs else None
        self._replaying = threading.Lock()  # a graph has one memory for its inputs and outputs
        how = [name, *(["compiled"] if options.compiled is not None else []), str(self._device)]
        self.name = f"torch {torch.__version__}, {', '.join(how)}"
        logger.info("%s: %s", source.path.name, self.name)

    def infer(self, inputs: Arrays) -> Arrays:
        """See :class:`Runtime`."""
        tensors = self._tensors(inputs)
        with torch.inference_mode():
            if self._graphs is not None:
                with self._replaying:
                    found = self._graphs.run(tensors, self.signature)
                    if found is not None:
                        return _arrays(found)
            return _arrays(self._called(tensors))

    def warm(self, inputs: Arrays) -> Arrays:
        """See :class:`Runtime`. Where CUDA graphs are asked for, this batch size gets one."""
        if self._graphs is not None:
            with torch.inference_mode():
                self._graphs.capture(self._called, self._tensors(inputs), self.signature)
        return self.infer(inputs)

    def warm_sizes(self, batch_size: int) -> list[int]:
        """See :class:`Runtime`."""
        if self.options.every_size:
            return list(range(1, batch_size + 1))
        if self._graphs is not None:  # what lies between is filled up to the next one
            return [*(1 << at for at in range(batch_size.bit_length()) if 1 << at < batch_size), batch_size]
        return [1, 2, batch_size]

    @property
    def wants_warm_up(self) -> bool:
        """See :class:`Runtime`."""
        return self.options.compiled is not None or self._graphs is not None

    def tensor(self, array: np.ndarray[Any, Any], dtype: str = "") -> torch.Tensor:
        """``array`` on the device, in the precision and memory format of the options. ``dtype`` is the input's."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        wanted = torch.bfloat16 if dtype == BFLOAT16 else None  # NumPy has none: it comes as float32
        if tensor.is_floating_point():
            wanted = self.options.dtype or wanted
        tensor = tensor.to(self._device, wanted)
        if self.options.channels_last and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def _tensors(self, inputs: Arrays) -> list[torch.Tensor]:
        return [self.tensor(inputs[one.name], one.dtype) for one in self.signature.inputs]

    def _called(self, tensors: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        with self._precision():
            return named_outputs(self.call(*tensors), self.signature.outputs)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.options.autocast is None:
            return nullcontext()
        # A graph must not hold weights that the cache gave up after its capture.
        return torch.autocast(
            self._device.type, dtype=self.options.autocast, cache_enabled=None if self._graphs is None else False
        )


def prepared(module: torch.nn.Module, source: Source, options: Options) -> torch.nn.Module:
    """``module`` for inference, on its device, in the precision and memory format of the options."""
    module.eval()
    module = module.to(worker_device(source.gpu), options.dtype)
    if options.channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def named_outputs(output: Any, declared: Sequence[Tensor]) -> dict[str, torch.Tensor]:
    """What a model returned, by name: ``output``, or ``output_0`` … for several; a dict and a dataclass have names."""
    if isinstance(output, Mapping):
        return {str(name): value for name, value in output.items() if isinstance(value, torch.Tensor)}
    if isinstance(output, torch.Tensor):
        return {declared[0].name if len(declared) == 1 else "output": output}
    if not isinstance(output, (list, tuple)) or not all(isinstance(one, torch.Tensor) for one in output):
        raise WrongOutput(f"The model returned a {type(output).__name__}; expected tensors, or a dict or tuple of them")
    names = [one.name for one in declared] if len(declared) == len(output) else []
    fields = getattr(output, "_fields", None) or names or [f"output_{index}" for index in range(len(output))]
    return dict(zip(fields, output, strict=True))


def _arrays(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    return {name: _array(tensor) for name, tensor in tensors.items()}


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:  # NumPy has none
        tensor = tensor.float()
    return np.asarray(tensor.cpu().numpy())
