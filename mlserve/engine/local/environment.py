"""What of a worker's environment depends on neither settings nor model: all that counts before its first frame.

No settings are imported here: the first worker's process is started before they are read.
"""

from __future__ import annotations

import os
import site
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlserve

SECRETS = frozenset(("MLSERVE_TLS_KEYSTORE_PASS", "TS_KEYSTORE_PASS"))  # of the settings: no business of models
_KEEP = str(1 << 30)  # bytes that a worker's allocator keeps instead of giving them back


def base_environment(environ: Mapping[str, str], python: str = "") -> dict[str, str]:
    """``environ``, the server's, as a worker in the interpreter ``python`` ("" = the server's) is to be started with.

    The model's directory is not on the path yet, and not the working directory (see ``process.py``): a model file
    named like a standard module (``queue.py``) would break the worker before it could say so. The worker puts it in
    front when it loads the model.
    """
    env = {name: value for name, value in environ.items() if name not in SECRETS}
    given = [os.path.abspath(entry) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    path = [*given, *_package_path(python)]
    env.pop("PYTHONPATH", None)
    if path:
        env["PYTHONPATH"] = os.pathsep.join(path)
    env["PYTHONUNBUFFERED"] = "1"
    env.setdefault("PYTHONFAULTHANDLER", "1")  # a crash in native code leaves its Python stack in the log
    # ONNX Runtime's Linux builds from 1.29 on report models' names and hashes to their maker unless told not to.
    env.setdefault("ORT_DISABLE_TELEMETRY", "1")
    _tune(env)
    return env


def _tune(env: dict[str, str]) -> None:
    """Defaults of the C libraries that do not suit a process which computes the same thing again and again.

    Measured with EfficientNet-Lite0 in torch on 2 cores, one process per setting, in turn; the user's own values stay.
    """
    if "OMP_WAIT_POLICY" not in env:
        # A waiting OpenMP thread spins for milliseconds and starves the one it waits for as soon as anything else runs:
        # beside one busy process 132 to 180 ms an image by default, 57 to 67 like this; on idle cores no difference.
        env.setdefault("GOMP_SPINCOUNT", "10000")
    # An OpenBLAS thread spins for 2^26 cycles, 27 ms, when its library has been loaded and after each call: 5.3 ms of
    # CPU for a product of 40 us every 5 ms, 0.7 with 0.4 ms; calls one behind the other are as fast as before.
    env.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
    # glibc gives a batch's buffers back to the kernel after each batch and has every page zeroed anew for the next:
    # 6,000 page faults and 22 ms of 42 an image at batch 8; none, and 26 ms, like this. Memory stays at its peak.
    env.setdefault("MALLOC_TRIM_THRESHOLD_", _KEEP)
    env.setdefault("MALLOC_MMAP_THRESHOLD_", _KEEP)


def _package_path(python: str) -> Sequence[str]:
    """What the child must be given to find this package: nothing where it is installed, else the checkout's directory.

    It comes last, so that nothing else in the checkout can hide a module of the model. A site-packages directory is
    never passed on: a model's own interpreter must not see the server's packages.
    """
    parent = Path(mlserve.__file__).resolve().parent.parent
    installed = {Path(p).resolve() for p in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))}
    installed.update(Path(p).resolve() for p in (*site.getsitepackages(), site.getusersitepackages()))
    if parent in installed:
        return ()
    # Installed editable: the child finds it the same way. Asking importlib.metadata would import the package email.
    if not python and any(next(place.glob("mlserve-*.dist-info"), None) for place in installed):
        return ()
    return (str(parent),)
