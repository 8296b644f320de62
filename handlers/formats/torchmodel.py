"""What all torch models share: device, precision, tensors in and out.

Options under ``torch:`` in model-config.yaml: ``dtype: float16 | bfloat16`` (weights and floating inputs),
``autocast: float16 | bfloat16``, ``channels_last: true``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..runtimes import worker_device
from ..signature import Signature, Tensor

if TYPE_CHECKING:
    from . import Arrays, Source

logger = logging.getLogger(__name__)

_DTYPES = {"float16": torch.float16, "half": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class TorchModel:
    """A callable of tensors as a :class:`Runtime`. ``signature.inputs`` are its arguments, in order."""

    def __init__(self, name: str, call: Callable[..., Any], signature: Signature, source: Source) -> None:
        self.signature = signature
        self.call = call
        self._device = worker_device(source.gpu)
        self.name = f"torch {torch.__version__}, {name}, {self._device}"
        self._dtype = dtype_of(source.options, "dtype")
        self._autocast = dtype_of(source.options, "autocast")
        self._channels_last = source.options.get("channels_last") is True
        logger.info("%s: %s", source.path.name, self.name)

    def infer(self, inputs: Arrays) -> Arrays:
        """See :class:`Runtime`."""
        tensors = [self.tensor(inputs[one.name]) for one in self.signature.inputs]
        with torch.inference_mode():
            if self._autocast is None:
                output = self.call(*tensors)
            else:
                with torch.autocast(self._device.type, dtype=self._autocast):
                    output = self.call(*tensors)
        return {name: _array(tensor) for name, tensor in named_outputs(output, self.signature.outputs).items()}

    def tensor(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        """``array`` on the device, in the precision and memory format of the options."""
        with warnings.catch_warnings():
            # A .npy body is read-only memory; no model is expected to write into its input.
            warnings.filterwarnings("ignore", message=".*not writable.*", category=UserWarning)
            tensor = torch.from_numpy(np.ascontiguousarray(array))
        tensor = tensor.to(self._device, self._dtype if tensor.is_floating_point() else None)
        if self._channels_last and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor


def dtype_of(options: Mapping[str, Any], key: str) -> torch.dtype | None:
    """The dtype that an option names. Raises ``ValueError`` for one that is none."""
    value = options.get(key)
    if value is None:
        return None
    if value not in _DTYPES:
        raise ValueError(f"torch: {key} in model-config.yaml must be one of {', '.join(_DTYPES)}, got {value!r}")
    return _DTYPES[value]


def prepared(module: torch.nn.Module, source: Source) -> torch.nn.Module:
    """``module`` for inference, on its device, in the precision and memory format of the options."""
    module.eval()
    module = module.to(worker_device(source.gpu), dtype_of(source.options, "dtype"))
    if source.options.get("channels_last") is True:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def named_outputs(output: Any, declared: Sequence[Tensor]) -> dict[str, torch.Tensor]:
    """What a model returned, by name: ``output``, or ``output_0`` … for several; a dict and a dataclass have names."""
    if isinstance(output, Mapping):
        return {str(name): value for name, value in output.items() if isinstance(value, torch.Tensor)}
    if isinstance(output, torch.Tensor):
        return {declared[0].name if len(declared) == 1 else "output": output}
    if not isinstance(output, (list, tuple)) or not all(isinstance(one, torch.Tensor) for one in output):
        raise TypeError(f"The model returned a {type(output).__name__}; expected tensors, or a dict or tuple of them")
    names = [one.name for one in declared] if len(declared) == len(output) else []
    fields = getattr(output, "_fields", None) or names or [f"output_{index}" for index in range(len(output))]
    return dict(zip(fields, output, strict=True))


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:  # NumPy has none
        tensor = tensor.float()
    return np.asarray(tensor.cpu().numpy())
