"""What a scikit-learn pipeline does with its columns: which hold text, which categories are known, whether gaps are.

Read from the fitted objects, because no estimator says it of a pipeline as a whole: a pipeline's own tags deny that it
takes missing values even if its first step fills them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class Encoded(NamedTuple):
    """A column of text: the categories its encoder knows, and whether it fails on others."""

    categories: list[Any]
    strict: bool


def selects_columns(estimator: Any) -> bool:
    """Whether the first step takes columns by name, and so a data frame."""
    return hasattr(steps_of(estimator)[0], "transformers_")


def allows_missing(estimator: Any) -> bool:
    """Whether NaN is a value that every step takes, or that one fills in before a step that does not."""
    from sklearn.utils import get_tags

    for step in steps_of(estimator):
        if "Imputer" in type(step).__name__:
            return True
        if hasattr(step, "transformers_"):  # which column NaN is in decides: an imputer among the parts is meant for it
            parts = [part for _, part, _ in step.transformers_ if not isinstance(part, str)]
            if any("Imputer" in type(one).__name__ for part in parts for one in steps_of(part)):
                return True
        elif not get_tags(step).input_tags.allow_nan:
            return False
    return True


def steps_of(estimator: Any) -> list[Any]:
    """The steps of a pipeline, and of the pipelines in it; else the estimator alone."""
    inner = getattr(estimator, "steps", None)
    return [estimator] if inner is None else [one for _, step in inner for one in steps_of(step)]


def encoded_columns(estimator: Any, names: Sequence[str]) -> dict[str, Encoded]:
    """The columns of text, by name: those whose encoder was fitted to text."""
    found = {}
    for transformer, columns in _transformers(steps_of(estimator)[0], names):
        for encoder in steps_of(transformer):
            categories = getattr(encoder, "categories_", None)
            if categories is None or len(categories) != len(columns):
                continue
            strict = getattr(encoder, "handle_unknown", "error") == "error"
            for name, known in zip(columns, categories, strict=True):
                if any(isinstance(one, str) for one in known):
                    found[name] = Encoded(list(known), strict)
    return found


def _transformers(step: Any, names: Sequence[str]) -> Iterator[tuple[Any, list[str]]]:
    """Every fitted part of a ``ColumnTransformer`` with the names of its columns."""
    for _, transformer, columns in getattr(step, "transformers_", ()):
        if isinstance(transformer, str):  # "drop", "passthrough"
            continue
        yield transformer, chosen_columns(columns, names)


def chosen_columns(columns: Any, names: Sequence[str]) -> list[str]:
    """The names behind a choice of columns: names, numbers, a slice of numbers, or a mask."""
    if not isinstance(columns, slice):
        columns = np.atleast_1d(np.asarray(columns))
        if columns.dtype.kind in "OU":
            return [str(one) for one in columns]
    return [str(one) for one in np.asarray(names)[columns]]
