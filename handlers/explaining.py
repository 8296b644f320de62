"""Explanations with captum: for which class an item is explained, and what cannot be explained at all."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlserve.handler import PredictionError

from .runtimes import is_session

_COMPILED = ("torch._inductor", "torch._export")  # what AOTInductor's libraries are called through


def captum(model: Any) -> Any:
    """Captum's attributions. Raises ``PredictionError`` 501 without captum, or if ``model`` has no gradients."""
    if is_session(model) or str(getattr(model, "__module__", "")).startswith(_COMPILED):
        raise PredictionError(501, "Explanations need gradients, which ONNX sessions and compiled libraries have not")
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise PredictionError(501, f"Explanations need captum: pip install captum ({error})") from None


def target_of(row: Any, default: Any) -> Any:
    """The class that a row names as ``target``, else ``default``. Raises ``PredictionError`` 400 if it is no number."""
    value = row.get("target") if isinstance(row, Mapping) else None
    if value is None or value in ("", b""):
        return default
    try:
        return int(bytes(value) if isinstance(value, memoryview) else value)
    except (ValueError, TypeError, OverflowError):
        raise PredictionError(400, f"target must be the index of a class, got {value!r}") from None


def within(targets: Sequence[Any], classes: Callable[[], Any]) -> tuple[list[Any], dict[int, PredictionError]]:
    """(targets with 0 for those that the model does not have, index -> refusal of those).

    ``classes`` returns an output of the model, ``[n, classes]``; it is called only if a target is not 0.
    """
    if not any(isinstance(target, int) and target for target in targets):
        return list(targets), {}
    output = classes()
    count = output.shape[1] if getattr(output, "ndim", 0) == 2 else None
    if count is None:
        return list(targets), {}
    wrong = {
        index: PredictionError(400, f"target is {target}, and the model's classes are 0 to {count - 1}")
        for index, target in enumerate(targets)
        if isinstance(target, int) and not 0 <= target < count
    }
    return [0 if index in wrong else target for index, target in enumerate(targets)], wrong
