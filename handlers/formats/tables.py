"""What the libraries for tables share: one input of rows, and values that they don't take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlserve.handler import PredictionError

from ..signature import Tensor

INPUT = "x"
"""The name of the input that holds whole rows."""


def rows_input(count: int, dtype: str, names: Sequence[str] | None) -> Tensor:
    """The input of a model of ``count`` features; ``names`` are theirs, if the file has them."""
    return Tensor(INPUT, dtype, (None, count), features=tuple(map(str, names or ())))


def refuse_unusable(array: np.ndarray[Any, Any], tensor: Tensor, *, missing: bool) -> None:
    """Raise :class:`PredictionError` for infinity, and unless the model takes it for a missing value (NaN)."""
    if array.dtype.kind != "f":
        return
    wrong = np.isinf(array) if missing else ~np.isfinite(array)
    if not wrong.any():
        return
    at = np.argwhere(wrong)[0]
    what = "missing (NaN)" if np.isnan(array[tuple(at)]) else "infinite"
    name = tensor.features[at[-1]] if tensor.features else tensor.name if array.ndim < 2 else f"number {at[-1]}"
    raise PredictionError(400, f"Feature {name} is {what}: the model takes finite numbers only")
