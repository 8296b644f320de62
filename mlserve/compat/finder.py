"""Makes ``import ts...`` mean ``mlserve.compat.ts...``, so that a handler file written for TorchServe runs as it is.

The two names are one module object, so a class is the same by either. Where a real torchserve is installed, a module
or a name that is missing here is taken from there; its own imports of ``ts`` come back here. Without one the error
says what is missing. A ``ts.py`` or ``ts/`` of the model itself wins: it has nothing to do with TorchServe.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

ALIAS = "ts"
TARGET = "mlserve.compat.ts"


def install() -> None:
    """Put the finder first, once."""
    if not any(isinstance(finder, TorchServeFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchServeFinder())


class TorchServeFinder(MetaPathFinder):
    """Finds ``ts`` and everything below it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module here, else the installed one. Raises ``ModuleNotFoundError`` that says what is missing."""
        if fullname != ALIAS and not fullname.startswith(ALIAS + "."):
            return None
        if _of_the_model(sys.modules.get(ALIAS)):
            return None
        own = TARGET + fullname[len(ALIAS) :]
        if _exists(own):
            package = importlib.util.find_spec(own)
            is_package = package is not None and package.submodule_search_locations is not None
            return ModuleSpec(fullname, _AliasLoader(own), is_package=is_package)
        installed = _installed(fullname)
        if installed is None:
            raise ModuleNotFoundError(
                f"No module named {fullname!r}: mlserve has no counterpart to this module of TorchServe, and "
                "torchserve is not installed beside it (pip install torchserve)",
                name=fullname,
            )
        return installed


class _AliasLoader(Loader):
    """Gives ``ts.x`` the module object of ``mlserve.compat.ts.x``."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module under its own name."""
        module = importlib.import_module(self._own)
        self._spec = module.__spec__
        if "__getattr__" not in vars(module):
            vars(module)["__getattr__"] = _missing(spec.name, self._own)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; only its spec, which the import system has just replaced, is put back."""
        module.__spec__ = self._spec


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


def _exists(own: str) -> bool:
    try:
        return importlib.util.find_spec(own) is not None
    except ModuleNotFoundError:
        return False  # its parent is not ours


def _installed(fullname: str) -> ModuleSpec | None:
    """The spec of a module of an installed torchserve."""
    names = fullname.split(".")
    spec = PathFinder.find_spec(names[0])
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
