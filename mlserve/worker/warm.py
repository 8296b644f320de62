"""A spare worker's part: import ahead of time what the running models' workers have imported, and take over late.

``import torch`` is 2.3 s of CPU on a 2.5 GHz Xeon, nearly all of the start of a worker with a small model. It needs
nothing that depends on the model, except that thread counts and the visible GPUs are read from the environment: thread
pools can be told later, and CUDA reads its variable when it is initialised, which importing does not do (checked).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import ModuleType

from mlserve.wire.payload import Warmed
from mlserve.worker.torch_import import import_torch

PACKAGES = ("torch", "torchvision", "torchaudio", "numpy", "scipy", "PIL", "safetensors", "onnxruntime", "mlserve")
"""Whose modules may be imported ahead: nothing they do at import depends on what is set late here."""
WORTH = ("torch", "onnxruntime")  # a model that imports neither starts quickly anyway

_ELSEWHERE = ("HF_", "TRANSFORMERS_", "TOKENIZERS_")  # variables of libraries that are not among PACKAGES
_OURS = ("PYTHONPATH",)  # set by the worker itself when it loads
_NOT_INITIALIZED = 3  # CUDA_ERROR_NOT_INITIALIZED of cuda.h
_POOLS = re.compile(r"(openblas|gomp|omp5|libomp)[^/]*\.so[^/]*$")
_SETTERS = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
    "omp_set_num_threads",
)


def heavy_modules(before: Mapping[str, str]) -> list[str]:
    """The modules of :data:`PACKAGES` that this worker has imported, in order; none if a spare is of no use to it.

    ``before`` was the environment when the worker began. A handler that has changed it may have done so for a library
    to see it at import, and for that a spare would be too late.
    """
    changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
    if any(not name.startswith((*_OURS, *_ELSEWHERE)) for name in changed):
        return []
    if not any(name in sys.modules for name in WORTH):
        return []
    return [name for name, module in list(sys.modules.items()) if _importable(name, module)]


def _importable(name: str, module: ModuleType | None) -> bool:
    """Whether importing ``name`` by itself would bring it: objects put into ``sys.modules`` by hand have no spec."""
    spec = getattr(module, "__spec__", None)
    return name.partition(".")[0] in PACKAGES and spec is not None and spec.name == name and name != "__main__"


def warm(modules: Sequence[str], environment: Mapping[str, str]) -> Warmed:
    """Import ``modules``, with ``environment`` set. What fails to import is left to whoever needs it."""
    os.environ.update(environment)  # calls putenv(3) too: C libraries see it
    begun, before = monotonic(), set(sys.modules)
    failed = []
    gc.disable()  # collections are 6 % of the time of `import torch`, and find next to nothing
    for name in modules:
        try:
            if name == "torch":
                import_torch()
            else:
                importlib.import_module(name)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
    gc.freeze()  # they stay: each later collection of all of torch's objects would take 0.12 s, the next one right away
    gc.enable()
    top = sorted({name.partition(".")[0] for name in sys.modules.keys() - before})
    return Warmed(monotonic() - begun, top, failed, cuda_initialised())


def adopt(environment: Mapping[str, str | None]) -> None:
    """Put in force what the environment of a worker started for this model would have said (None = not set)."""
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value  # calls putenv(3) too: C libraries see it
    if any(name.endswith("_THREADS") for name in environment):
        set_threads(int(os.environ["OMP_NUM_THREADS"]))


def set_threads(count: int) -> None:
    """Let every thread pool that has been loaded use ``count`` threads, as its variable would have at its start.

    What OpenMP is told holds for the thread that tells it, which is the one that computes; torch carries it to others.
    Unlike its setter, torch's variable knows a limit, the number of cores: a spare begins with that (``fitting``).
    """
    torch = sys.modules.get("torch")
    most = torch.get_num_threads() if torch is not None else count
    for path in _loaded():
        if _POOLS.search(path):
            library = ctypes.CDLL(path)
            for setter in _SETTERS:
                if hasattr(library, setter):
                    getattr(library, setter)(count)
    if torch is not None:
        torch.set_num_threads(min(count, most))


def _loaded() -> set[str]:
    """The files of all shared libraries of this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if ".so" in line and len(line.split(maxsplit=5)) == 6}


def cuda_initialised() -> bool:
    """Whether something has initialised CUDA here, after which this process cannot be pinned to a GPU any more."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return True
    if not any("libcuda.so" in path for path in _loaded()):
        return False
    count = ctypes.c_int()
    status = ctypes.CDLL("libcuda.so.1").cuDeviceGetCount(ctypes.byref(count))  # asks, does not initialise
    return bool(status != _NOT_INITIALIZED)
