"""Inputs that a model itself refuses: which of its errors are the request's fault, and what the refusal says.

A file that declares its inputs is never called with a wrong shape. TorchScript and weights declare nothing, and other
files leave dimensions open: there the model's own error is all that tells. It is taken for the request's fault if it is
of a kind that the library raises for shapes, dtypes and indices, and unless this worker has answered this very shape
and dtype before: then it is the model's, and stays a 500.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import TYPE_CHECKING

from mlserve.handler import PredictionError

from .signature import WrongOutput, shape_text

if TYPE_CHECKING:
    from .formats import Runtime
    from .items import Item
    from .signature import Tensor

logger = logging.getLogger(__name__)

KEPT = 1024  # shapes that are remembered: images come in thousands of them
SHOWN = 3
_NOT_THE_INPUT = re.compile(
    r"out of memory|[Aa]llocat|bad_alloc|CUDA|cuDNN|CUDNN|CUBLAS|cuFFT|CUFFT|same device|Could not run|"
    r"NotImplementedError|^backend="
)
_VALUES = re.compile(r"out of (range|bounds|data bounds)", re.I)
_ITS_ERROR = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception)): ?(.*)")  # the last line of TorchScript's traceback
_STATUS = "Status Message: "  # onnxruntime's, after the node's name
_FAKE_CALL = re.compile(r"got \w+\((['\"])(.*?)\1\)")  # torch.compile's, from a call with tensors without data

Key = tuple[tuple[tuple[int, ...], str], ...]


class Misfits:
    """What one model has answered, and which of its errors are refusals.

    ``errors`` of the runtime (its ``input_errors``) are the exceptions to judge; without them there are no refusals.
    """

    def __init__(self, model: str, runtime: Runtime) -> None:
        self._model = model
        self._errors: tuple[type[BaseException], ...] = getattr(runtime, "input_errors", ())
        self._signature = runtime.signature
        self._answered: dict[Key, None] = {}
        self._refused = 0
        self._lock = threading.Lock()  # all copies of a handler share what is known
        self._open = not all(_is_closed(one) for one in runtime.signature.inputs)

    def answered(self, item: Item) -> None:
        """The model has answered ``item``."""
        if self._open and (key := self._key(item)) not in self._answered:
            with self._lock:
                if len(self._answered) >= KEPT:
                    del self._answered[next(iter(self._answered))]
                self._answered[key] = None

    def refusal(self, error: Exception, item: Item) -> PredictionError:
        """What to answer ``item``, with which the model was called alone. ``error`` concerns it."""
        with self._lock:
            self._refused += 1
            self._log(error)
        return PredictionError(400, f"{self._model} does not take {self._sent(item)}: {reason(error)}. {self._hint()}")

    def concerns(self, error: Exception, item: Item) -> bool:
        """Whether ``error`` may be due to the shape, the dtype or the values of what the model was called with."""
        if not isinstance(error, self._errors) or isinstance(error, (NotImplementedError, WrongOutput)):
            return False
        if type(error).__name__ in ("OutOfMemoryError", "BackendCompilerFailed", "InternalTorchDynamoError"):
            return False
        text = reason(error)
        if _NOT_THE_INPUT.search(text):
            return False
        if isinstance(error, IndexError) or _VALUES.search(text):
            return True
        return self._open and self._key(item) not in self._answered

    def _key(self, item: Item) -> Key:
        return tuple(
            (_of_a_row(item.arrays[one.name].shape, one.axis), item.arrays[one.name].dtype.name)
            for one in self._signature.inputs
        )

    def _sent(self, item: Item) -> str:
        return self._text(self._key(item)) + (f", {item.rows} rows of it" if item.whole and item.rows > 1 else "")

    def _text(self, key: Key) -> str:
        names = [one.name for one in self._signature.inputs]
        return ", ".join(f"{name} {shape_text(shape)} {dtype}" for name, (shape, dtype) in zip(names, key, strict=True))

    def _hint(self) -> str:
        if not self._open:
            return "The shape is right, the values are not"
        if self._answered:
            return "It has answered " + "; ".join(self._text(key) for key in list(self._answered)[-SHOWN:])
        return (
            "It has answered nothing so far: inputs: in model-config.yaml would say what it takes; if it takes nothing "
            "at all, the model's log says where it fails"
        )

    def _log(self, error: Exception) -> None:
        """The traceback once; while nothing else comes of the model, that it may be broken."""
        if self._refused == 1:
            logger.warning(
                "%s refused an input; tracebacks of further ones are not logged", self._model, exc_info=error
            )
        elif not self._answered and self._open and str(self._refused).strip("0") == "1":
            logger.error(
                "%s has refused %d inputs and answered none: it may be broken (%s)",
                self._model,
                self._refused,
                reason(error),
            )


def reason(error: BaseException) -> str:
    """What is wrong in one line: TorchScript, torch.compile and OpenVINO put it at the end of pages."""
    text = str(error).rpartition(_STATUS)[2]
    if (fake := _FAKE_CALL.search(text)) is not None:
        return fake[2].rstrip(". ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        found = next((named for line in reversed(lines) if (named := _ITS_ERROR.match(line))), None)
        if found is not None:
            return (found[2] or found[1]).rstrip(". ")[:300]
        if lines[0].startswith("Exception from "):
            return lines[-1].rstrip(". ")[:300]
    return (lines[0] if lines else type(error).__name__).rstrip(". ")[:300]


def _is_closed(tensor: Tensor) -> bool:
    """Whether nothing about a tensor is open but the length of the batch."""
    return bool(tensor.dtype) and tensor.item_shape is not None and all(isinstance(d, int) for d in tensor.item_shape)


def _of_a_row(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    return shape if axis is None else shape[:axis] + shape[axis + 1 :]
