"""``import ts...`` in a worker, so that a handler file written for TorchServe runs as it is.

The names are those of ``mlserve.compat.ts``. Where a real torchserve is installed, a module or a name that is missing
here is taken from there; its own imports of ``ts`` come back here. Without one the error says what is missing.
A ``ts.py`` or ``ts/`` of the model itself wins: it has nothing to do with TorchServe.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from mlserve.compat.alias import Alias

ALIAS = "ts"
TARGET = "mlserve.compat.ts"


def install() -> None:
    """Put the finder first, once."""
    if not any(isinstance(finder, TorchServeFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchServeFinder(ALIAS, TARGET))


class TorchServeFinder(Alias):
    """Finds ``ts`` and everything below it: here, else in an installed torchserve."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``. Raises ``ModuleNotFoundError`` that says what is missing."""
        if fullname != ALIAS and not fullname.startswith(ALIAS + "."):
            return None
        if _of_the_model(sys.modules.get(ALIAS)):
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None:
            own = importlib.import_module(TARGET + fullname[len(ALIAS) :])
            vars(own).setdefault("__getattr__", _missing(fullname, own.__name__))
            return spec
        spec = _installed(fullname)
        if spec is None:
            beside = (
                "the torchserve installed beside it has none either"
                if _installed(f"{ALIAS}.torch_handler")
                else "torchserve is not installed beside it (pip install torchserve)"
            )
            raise ModuleNotFoundError(
                f"No module named {fullname!r}: mlserve has no counterpart to this module of TorchServe, and {beside}",
                name=fullname,
            )
        return spec


def _missing(name: str, own: str) -> Callable[[str], Any]:
    """What a module answers for an attribute that it lacks: the one of the installed torchserve."""
    counterpart: list[ModuleType] = []

    def lookup(attribute: str) -> Any:
        if not attribute.startswith("__"):
            if not counterpart:
                spec = _installed(name)
                if spec is not None and spec.loader is not None and spec.submodule_search_locations is None:
                    module = importlib.util.module_from_spec(spec)
                    spec.loader.exec_module(module)
                    counterpart.append(module)
            if counterpart and hasattr(counterpart[0], attribute):
                return getattr(counterpart[0], attribute)
        raise AttributeError(f"module {own!r}, which stands in for {name!r}, has no attribute {attribute!r}")

    return lookup


def _installed(fullname: str) -> ModuleSpec | None:
    """The spec of a module of an installed torchserve."""
    names = fullname.split(".")
    # Entry by entry: a pointer to mlserve's modules may come before it, as `mlserve compat install-shims` writes one.
    roots = (PathFinder.find_spec(ALIAS, [entry]) for entry in sys.path)
    spec = next((root for root in roots if root and _is_torchserve(root.submodule_search_locations or ())), None)
    for depth in range(2, len(names) + 1):
        if spec is None or not spec.submodule_search_locations:
            return None
        spec = PathFinder.find_spec(".".join(names[:depth]), spec.submodule_search_locations)
    return spec


def _of_the_model(loaded: ModuleType | None) -> bool:
    """Whether ``ts`` is a module of the model's directory, in which a worker runs, and not TorchServe's package."""
    if loaded is not None:
        return loaded.__name__ == ALIAS and not _is_torchserve(getattr(loaded, "__path__", ()))
    spec = PathFinder.find_spec(ALIAS, [os.getcwd()])
    return spec is not None and not _is_torchserve(spec.submodule_search_locations or ())


def _is_torchserve(folders: Iterable[str]) -> bool:
    return any(os.path.isdir(os.path.join(folder, "torch_handler")) for folder in folders)
