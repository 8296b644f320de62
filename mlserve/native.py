"""How classes of the compiled build say what mypyc cannot see; in pure Python it says nothing.

mypyc knows the decorator by the name that mypy has for it, so that ``mypy_extensions`` need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:
    T = TypeVar("T")

    def mypyc_attr(*_: str, **__: object) -> Callable[[T], T]:
        """``acyclic=True``: no instance can be part of a cycle, so the collector need not know of them.
        ``allow_interpreted_subclasses=True``: modules that are not compiled may derive from it.
        """
        return lambda made: made
