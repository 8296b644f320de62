"""What handlers do with the rows of a batch before they compute: read each, and set aside those to be refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from mlserve.handler import PredictionError

T = TypeVar("T")

FORM = "application/x-www-form-urlencoded"


def read_rows(
    data: Sequence[Any], read: Callable[[Any], T], rows: Sequence[Any] | None = None
) -> tuple[dict[int, T], dict[int, Any]]:
    """(what ``read`` makes of each element, the refusal of each that it raises :class:`PredictionError` for), by index.

    ``rows`` are the rows that the elements of ``data`` stand for, where they are not the rows themselves.
    """
    found: dict[int, T] = {}
    refused: dict[int, Any] = {}
    for index, row in enumerate(data):
        try:
            found[index] = read(row)
        except PredictionError as error:
            refused[index] = explained(error, (data if rows is None else rows)[index])
    return found, refused


def explained(error: PredictionError, row: Any) -> PredictionError:
    """``error``, with the reason for it if ``row`` is a body that was taken for a form.

    curl's ``-d`` and ``--data-binary`` name that type unless told another; the body is then the name of a field.
    """
    if not isinstance(row, Mapping) or "body" in row or "data" in row or FORM in error.message:
        return error
    if not any(not value or str(name)[:1] in ("{", "[") or not str(name).isprintable() for name, value in row.items()):
        return error
    return PredictionError(error.status, f"{error.message}. The body came as {FORM}: send its own content-type")
