"""One package under a second name: ``ts`` for ``mlserve.compat.ts``, submodules included.

Each module is loaded once, under its real name, so that a class is the same class by whichever name it was imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType


class _Loader(importlib.abc.Loader):
    def __init__(self, real: str) -> None:
        self._real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._real)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the alias's there


class Alias(importlib.abc.MetaPathFinder):
    """Finds ``name`` and everything below it at ``target``; what is not there is left to others."""

    def __init__(self, name: str, target: str) -> None:
        self.name = name
        self.target = target

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        if fullname != self.name and not fullname.startswith(self.name + "."):
            return None
        real = self.target + fullname[len(self.name) :]
        try:
            found = importlib.util.find_spec(real)
        except ModuleNotFoundError:
            return None
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return importlib.machinery.ModuleSpec(fullname, _Loader(real), is_package=is_package)


def install(name: str, target: str) -> None:
    """Make ``import name`` give the package ``target``, before anything else of that name. Again is no harm."""
    if not any(isinstance(finder, Alias) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, Alias(name, target))


def stand_in(name: str, target: str) -> None:
    """To be called by a package ``name`` that is nothing but a pointer to ``target``: takes its place."""
    install(name, target)
    sys.modules[name] = importlib.import_module(target)
