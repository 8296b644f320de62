"""What a scikit-learn pipeline does with its columns: which hold text, which categories are known, whether gaps are.

Read from the fitted objects, because no estimator says it of a pipeline as a whole: a pipeline's own tags deny that it
takes missing values even if its first step fills them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class Encoded(NamedTuple):
    """A column of categories: those that its encoder knows, whether it fails on others, whether gaps are filled before.

    ``objects``: it was fitted to Python's objects, and fails on an array of numbers even if it knows all of them.
    """

    categories: list[Any]
    strict: bool
    filled: bool
    objects: bool

    @property
    def text(self) -> bool:
        """Whether the encoder was fitted to text."""
        return any(isinstance(one, str) for one in self.categories)

    def knows(self, value: Any) -> bool:
        """Whether the encoder takes ``value``."""
        if value in self.categories or not self.strict:
            return True
        return value != value and (self.filled or any(one != one for one in self.categories))  # NaN


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
    """The columns of categories, by name: those that reach an encoder."""
    found = {}
    for steps, columns in _parts(estimator, names):
        filled = changed = False
        for step in steps:
            categories = getattr(step, "categories_", None)
            if categories is None:
                filled |= "Imputer" in type(step).__name__
                changed |= "Imputer" not in type(step).__name__
            elif len(categories) == len(columns):
                # What another step made of the values is not known; TargetEncoder takes any, and has no such parameter.
                strict = getattr(step, "handle_unknown", "") == "error" and not changed
                found.update(
                    {
                        name: Encoded(list(one), strict, filled, one.dtype == object)
                        for name, one in zip(columns, categories, strict=True)
                    }
                )
                break
    return found


def _parts(estimator: Any, names: Sequence[str]) -> Iterator[tuple[list[Any], list[str]]]:
    """The steps that a column goes through first, and the names of the columns that go through these."""
    steps = steps_of(estimator)
    if not hasattr(steps[0], "transformers_"):
        yield steps, list(names)
        return
    for _, transformer, columns in steps[0].transformers_:
        if not isinstance(transformer, str):  # "drop", "passthrough"
            yield steps_of(transformer), chosen_columns(columns, names)


def chosen_columns(columns: Any, names: Sequence[str]) -> list[str]:
    """The names behind a choice of columns: names, numbers, a slice of numbers, or a mask."""
    if not isinstance(columns, slice):
        columns = np.atleast_1d(np.asarray(columns))
        if columns.dtype.kind in "OU":
            return [str(one) for one in columns]
    return [str(one) for one in np.asarray(names)[columns]]
