"""What handlers do with the rows of a batch before they compute: read each, and set aside those to be refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mlserve.handler import PredictionError

T = TypeVar("T")


def read_rows(data: Sequence[Any], read: Callable[[Any], T]) -> tuple[dict[int, T], dict[int, Any]]:
    """(what ``read`` makes of each row, the refusal of each that it raises :class:`PredictionError` for), by index."""
    found: dict[int, T] = {}
    refused: dict[int, Any] = {}
    for index, row in enumerate(data):
        try:
            found[index] = read(row)
        except PredictionError as error:
            refused[index] = error
    return found, refused
