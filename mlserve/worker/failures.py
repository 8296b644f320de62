"""What an exception of a handler means to the client, and whether the process can go on after it."""

from __future__ import annotations

import traceback

from mlserve.errors import ErrorKind, ServeError
from mlserve.handler import PredictionError
from mlserve.wire.payload import ItemResult

# After these the CUDA context is lost and every later call in the process fails too: cudaError_t in the CUDA runtime
# API says of them that the process must be terminated and relaunched.
_LOST_DEVICE = (
    "device-side assert triggered",
    "an illegal memory access",
    "an illegal instruction was encountered",
    "misaligned address",
    "unspecified launch failure",
    "hardware stack error",
    "invalid program counter",
    "uncorrectable ECC error",
    "the launch timed out and was terminated",
    "operation not supported on global/shared address space",
    "GPU has fallen off the bus",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether host or device memory ran out (torch's class is compared by name: torch may not be installed)."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "out of memory" in text_of(error))
    )


def is_fatal(error: BaseException) -> bool:
    """Whether the accelerator is lost to this process."""
    if not isinstance(error, RuntimeError):
        return False
    text = text_of(error)
    return "CUDA" in text and any(sign in text for sign in _LOST_DEVICE)


def text_of(error: BaseException) -> str:
    """Its text; empty where making it fails too."""
    try:
        return str(error)
    except Exception:
        return ""


def describe(error: BaseException) -> str:
    """``Type: text`` in one piece."""
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def refusal(error: BaseException) -> tuple[int, str] | None:
    """(status, message) when the handler refused the item on purpose, else None.

    TorchServe's ``PredictionException`` is known by its shape: ``message`` and ``error_code``.
    """
    if isinstance(error, PredictionError):
        return int(error.status), str(error.message)  # whatever the handler gave
    code = getattr(error, "error_code", None)
    message = getattr(error, "message", None)
    if isinstance(code, int) and isinstance(message, str):
        return (code if 400 <= code <= 599 else 500), message
    return None


def is_refusal(error: BaseException) -> bool:
    """Whether the handler refused the item on purpose."""
    return refusal(error) is not None


def to_result(error: BaseException) -> ItemResult:
    """The answer for an item whose handling raised ``error``."""
    refused = refusal(error)
    if refused is not None:
        status, message = refused
        return ItemResult(status=status, error=ErrorKind.HANDLER_FAILED.value, message=message)
    if isinstance(error, ServeError):
        kind, message = error.kind, error.message
    elif is_out_of_memory(error):
        kind, message = ErrorKind.OUT_OF_MEMORY, describe(error)
    else:
        kind, message = ErrorKind.HANDLER_FAILED, describe(error)
    return ItemResult(error=kind.value, message=message, detail=format_traceback(error))


def format_traceback(error: BaseException) -> str:
    """The traceback as Python prints it, at most 32 KiB: a chain of recursion errors is not worth more."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return text if len(text) <= 32768 else text[:16384] + "\n  ...\n" + text[-16384:]
