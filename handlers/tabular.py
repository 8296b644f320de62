"""``tabular``: rows of a table. What ``auto`` takes, and rows as JSON objects of named features.

One request is one row: ``{"age": 41, "income": 50000}``, ``[41, 50000]``, or a list of such rows, which is answered by
lists. ``null`` is a missing value. The features' names come from the model's file; ``features: [age, income]`` in
model-config.yaml gives them to a model that was trained without.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlserve.handler import Context, PredictionError

from . import items
from .auto import ModelHandler
from .signature import Signature, Tensor


class TabularHandler(ModelHandler):
    """The handler class."""

    def initialize(self, context: Context) -> None:
        """Load the model. Raises ``ValueError`` also for ``features:`` that the model cannot have."""
        super().initialize(context)
        names = (context.model_yaml_config or {}).get("features")
        if names is not None:
            self.runtime.signature = self.signature = with_features(self.signature, names)
            self.model_signature = self.describe()

    def decode(self, row: Any) -> items.Item:
        """See :class:`ModelHandler`."""
        value = fields_of(row)
        several = isinstance(value, list) and bool(value) and all(isinstance(one, (list, Mapping)) for one in value)
        rows = value if several else [value]
        if not all(self._is_row(one) for one in rows):
            return super().decode(row)
        return self.checked(items.Item(arrays_of(rows, self.signature), len(rows), whole=several))

    def _is_row(self, value: Any) -> bool:
        """Whether ``value`` is a row; not the name of the one input with its array, and not Open Inference."""
        (first, *others) = self.signature.inputs
        if first.dtype == "str" and not others:
            return False
        if isinstance(value, Mapping):
            if isinstance(value.get("inputs"), list):
                return False
            array = value.keys() == {first.name} and not isinstance(value[first.name], (int, float))
            if others:  # the handler ``model`` knows arrays by their names
                return not any(isinstance(one, list) for one in value.values())
            return bool(first.features) and not array
        return isinstance(value, list) and not any(isinstance(one, (list, Mapping)) for one in value)


def fields_of(row: Any) -> Any:
    """What a row says: its body's JSON, or a form's fields as bytes, as text is no number anywhere else."""
    body = items.body_of(row)
    if isinstance(row, Mapping) and isinstance(body, Mapping) and body.keys() == row.keys():
        return {name: value.encode() if isinstance(value, str) else value for name, value in body.items()}
    return parsed(body)


def parsed(body: Any) -> Any:
    """A body of JSON text as what it says; ``None`` for one that is something else."""
    if not isinstance(body, (bytes, bytearray, str)):
        return body
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def with_features(signature: Signature, names: Any) -> Signature:
    """``signature`` with the names of ``features:``. Raises ``ValueError`` for another number of them."""
    (first, *others), known = signature.inputs, signature.inputs[0].shape
    count = known[-1] if known else None
    if others or not isinstance(names, list) or (isinstance(count, int) and count != len(names)):
        raise ValueError(f"features in model-config.yaml must list {count} names, got {names!r}: {signature.takes()}")
    return signature._replace(inputs=(first._replace(features=tuple(map(str, names))),))


def arrays_of(rows: Sequence[Any], signature: Signature) -> dict[str, np.ndarray[Any, Any]]:
    """Rows, each a list or an object, as the model's inputs. Raises :class:`PredictionError` with status 400."""
    (first, *others) = signature.inputs
    if others:  # one input per feature
        names = [tensor.name for tensor in signature.inputs]
        table = [in_order(row, names, signature) for row in rows]
        columns = zip(signature.inputs, zip(*table, strict=True), strict=True)
        return {tensor.name: _shaped(_column(values, tensor), tensor, signature) for tensor, values in columns}
    width = first.shape[-1] if first.shape else None
    names = list(first.features) or [f"number {at}" for at in range(width if isinstance(width, int) else len(rows[0]))]
    table = [in_order(row, names, signature) for row in rows]
    numbers = [[number(value, name, first.dtype) for value, name in zip(row, names, strict=True)] for row in table]
    return {first.name: items.as_array(numbers, first)}


def _column(values: Sequence[Any], tensor: Tensor) -> np.ndarray[Any, Any]:
    if tensor.dtype != "str":
        return items.as_array([number(value, tensor.name, tensor.dtype) for value in values], tensor)
    return items.as_array([value.decode() if isinstance(value, bytes) else value for value in values], tensor)


def _shaped(column: np.ndarray[Any, Any], tensor: Tensor, signature: Signature) -> np.ndarray[Any, Any]:
    """One value per row as ``[rows]``, or as ``[rows, 1]`` where the model has that."""
    single = (1,) * len(tensor.item_shape or ())
    if not tensor.fits(single):
        raise items.wrong_shape(tensor, (), signature)
    return column.reshape(len(column), *single)


def in_order(row: Any, names: Sequence[str], signature: Signature) -> list[Any]:
    """The values of a row in the order of ``names``."""
    if isinstance(row, Mapping):
        missing, unknown = [one for one in names if one not in row], [one for one in row if one not in names]
        if missing or unknown:
            raise items.wrong_names(missing, unknown, "feature", f"the model takes {', '.join(names)}")
        return [row[one] for one in names]
    if len(row) != len(names):
        raise PredictionError(400, f"A row of {len(row)} values, expected {len(names)}: {signature.takes()}")
    return list(row)


def number(value: Any, feature: str, dtype: str = "") -> float | int:
    """A value of a feature that is a number; ``null`` is NaN, true and false are 1 and 0 unless ``dtype`` is bool.

    Raises :class:`PredictionError` with status 400.
    """
    if value is None:
        return float("nan")
    if isinstance(value, (bytes, bytearray)):  # a form's field
        text = value.decode(errors="replace")
        value = text if (read := parsed(value)) is None else read
    if isinstance(value, bool) and dtype != "bool":
        return int(value)
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        raise PredictionError(
            400,
            f"Feature {feature} is {value[:40]!r}: the model takes numbers only. Send a category as the number that it "
            "had in training",
        )
    raise PredictionError(400, f"Feature {feature} is {type(value).__name__}, expected a number")
