"""``import torch`` with both cores: its library is linked in a thread while its modules are read in another.

Of the 1.4 s that the import takes on a 2.5 GHz Xeon, 0.24 s are the dynamic linker's and the static constructors' of
``libtorch_cpu.so``, which register some thousand operators and need no interpreter. CPython holds its lock meanwhile.
Here the library is opened by a thread without it, and until it is there the main thread finds, reads and unmarshals
the modules that the import will ask for next. Everything is run in the order in which ``import torch`` runs it; what
cannot be done ahead, or was guessed wrong, it does itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import inspect
import os
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

_NOT_IMPORTED = tuple(  # by `import torch`, although its modules name them: in functions, for type checkers
    f"torch.{name}"
    for name in (
        *("_dynamo", "_inductor", "_functorch._aot_autograd", "onnx", "utils.tensorboard", "utils._sympy"),
        *("distributed.tensor", "distributed.fsdp", "distributed.optim", "distributed._shard", "distributed._tools"),
        *("fx.experimental.symbolic_shapes", "fx.experimental.migrate_gradual_types"),
    )
)
_OTHER_BUILDS = ("libtorch_cuda.so", "libtorch_hip.so", "libtorch_xpu.so")


def import_torch() -> None:
    """``import torch``, sooner. Raises what that raises."""
    root = PathFinder.find_spec("torch")
    places = list(root.submodule_search_locations or ()) if root is not None else []
    library = Path(places[0], "lib") if len(places) == 1 else None
    usual = sys.platform == "linux" and "torch" not in sys.modules and PathFinder in sys.meta_path
    if not usual or library is None or not _plain(library):
        importlib.import_module("torch")
        return
    ahead = Ahead()
    thread = threading.Thread(target=_open, args=(library / "libtorch_cpu.so",))
    thread.start()
    try:
        ahead.read("torch", thread.is_alive)
    finally:
        thread.join()  # or the process could end in the middle of a constructor
    sys.meta_path.insert(sys.meta_path.index(PathFinder), ahead)
    try:
        importlib.import_module("torch")
    finally:
        sys.meta_path.remove(ahead)


def _plain(library: Path) -> bool:
    """Whether it is a build for CPUs alone: others load more, in an order of their own. Opens what torch opens first.

    That is in the main thread, to which libgomp binds what it is told of cores.
    """
    if not (library / "libtorch_cpu.so").exists() or any((library / name).exists() for name in _OTHER_BUILDS):
        return False
    try:
        ctypes.CDLL(str(library / "libtorch_global_deps.so"), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _open(path: Path) -> None:
    """Open a library as importing a module that needs it would, but as a foreign call: without the interpreter's lock.

    Where that fails, the import will say why.
    """
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    dlopen(os.fsencode(path), os.RTLD_NOW | os.RTLD_LOCAL)


def _is_plain(name: str, where: Sequence[str]) -> bool:
    """Whether it is a file or a package with one: others cannot be looked for before their parents are imported."""
    file = os.path.join(where[0], name.rpartition(".")[2])
    return len(where) == 1 and (os.path.exists(f"{file}.py") or os.path.exists(f"{file}/__init__.py"))


class Ahead:
    """A finder to be put in front of ``PathFinder``, which has some modules' specs and code from it already."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[ModuleSpec, CodeType, list[str] | None]] = {}
        self._names: dict[str, frozenset[str]] = {}  # of the modules in a package

    def read(self, root: str, going: Callable[[], bool]) -> None:
        """Read ``root`` and what it names, and what that names, as long as ``going()`` says so."""
        queue, seen = [root], {root}
        for name in queue:
            if not going():
                return
            code = self._read(name)
            if code is not None:
                more = sorted(self._named_by(name, code.co_names) - seen)
                seen.update(more)
                queue += more

    def _read(self, name: str) -> CodeType | None:
        """Find the module and read its code, where its file is plain Python and its package has been read."""
        parent = name.rpartition(".")[0]
        where = None
        if parent:
            where = list(self._found[parent][0].submodule_search_locations or ()) if parent in self._found else []
            if not where or not _is_plain(name, where):
                return None
        try:
            spec = PathFinder.find_spec(name, where)
            if spec is None or type(spec.loader) is not SourceFileLoader:
                return None
            code = spec.loader.get_code(name)
        except (ImportError, OSError, SyntaxError, ValueError):
            return None
        if code is None:
            return None
        self._found[name] = spec, code, where
        return code

    def _named_by(self, name: str, words: Collection[str]) -> set[str]:
        """Modules of the same root that ``name`` may import: ``words`` are all names that its body uses.

        Dotted ones are of imports; ``from package import module`` and relative ones are words like any other.
        """
        root = name.partition(".")[0]
        package = name if self._found[name][0].submodule_search_locations is not None else name.rpartition(".")[0]
        named = {package, root} if root in words else {package}
        for word in words:
            if "." in word and word.startswith(f"{root}."):
                named.update(word[:end] for end in range(len(word)) if word[end] == ".")
                named.add(word)
        for one in list(named):
            named.update(f"{one}.{module}" for module in self._modules(one).intersection(words))
        return {one for one in named if not one.startswith(_NOT_IMPORTED)}

    def _modules(self, package: str) -> frozenset[str]:
        """The modules and packages in ``package``; none where it is a module."""
        found = self._names.get(package)
        if found is None:
            with contextlib.suppress(OSError):
                entries = [entry for place in self._places(package) for entry in os.listdir(place)]
                found = frozenset(entry.removesuffix(".py") for entry in entries)
            found = self._names[package] = found or frozenset()
        return found

    def _places(self, package: str) -> Sequence[str]:
        """Where the modules of ``package`` lie, if it has been read, else where that is to be expected."""
        if package in self._found:
            return self._found[package][0].submodule_search_locations or ()
        parent, _, name = package.rpartition(".")
        return [os.path.join(place, name) for place in self._places(parent)] if parent else ()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib calls it. The spec is the one that ``PathFinder`` made, its loader gives the code once."""
        spec, code, where = self._found.pop(fullname, (None, None, None))
        if spec is None or code is None or (list(path) if path is not None else None) != where:
            return None
        loader = spec.loader

        def get_code(name: str) -> CodeType:
            del loader.get_code  # type: ignore[union-attr]
            return code

        loader.get_code = get_code  # type: ignore[union-attr]
        if spec.origin is not None:
            # What `inspect.getmodule` would find out by resolving the file names of all modules there are: 0.06 s,
            # when torch asks it for the place of a call.
            inspect.modulesbyfile[spec.origin] = fullname
        return spec
