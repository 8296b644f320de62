"""Commands whose parameters are put together by a decorator: typer reads them from the signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any


def declared(
    command: Callable[..., None], function: Callable[..., Any], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """``command`` as typer is to see it: with the name and help of ``function``, and with ``parameters``."""
    command.__name__ = function.__name__
    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in parameters}
    return command
