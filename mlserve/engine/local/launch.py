"""What a worker process is started with: its command line, its environment and its first frame.

Everything that must be set before a library is imported (the visible device, thread counts) goes by the environment,
because nothing later can change it.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mlserve
from mlserve.core.model import ModelSpec
from mlserve.wire.payload import Load

_KEEP = str(1 << 30)  # bytes that a worker's allocator keeps instead of giving them back
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


@dataclass(frozen=True)
class LoadOptions:
    """How workers treat requests, where that is the server's choice and not the model's. Sizes in bytes."""

    limit_max_image_pixels: bool = True
    decode_input: bool = True
    reject_invalid_json: bool = True
    infer_content_type: bool = True
    max_response_size: int = 64 << 20
    strict_results: bool = False
    service_envelope: str = ""
    sequence_id_header: str = "ts_request_sequence_id"
    sequence_start_header: str = "ts_request_sequence_start"
    sequence_end_header: str = "ts_request_sequence_end"
    handler_times: bool = False


def worker_command(spec: ModelSpec) -> list[str]:
    """The command that starts the child program; the engine appends the file descriptors."""
    return [spec.python or sys.executable, "-m", "mlserve.worker"]


def load_message(spec: ModelSpec, gpu_id: int | None, options: LoadOptions) -> Load:
    """The LOAD frame. A pinned worker sees one GPU only, so its handler is told 0."""
    return Load(
        model_name=spec.key.name,
        model_version=spec.key.version,
        model_dir=spec.model_dir,
        handler=spec.handler,
        manifest=dict(spec.manifest),
        config=dict(spec.config),
        gpu_id=None if gpu_id is None else 0,
        batch_size=spec.batch_size,
        limit_max_image_pixels=options.limit_max_image_pixels,
        decode_input=options.decode_input,
        reject_invalid_json=options.reject_invalid_json,
        isolate_errors=spec.isolate_errors,
        infer_content_type=options.infer_content_type,
        max_response_size=options.max_response_size,
        strict_results=options.strict_results,
        service_envelope=options.service_envelope,
        sequence_id_header=options.sequence_id_header,
        sequence_start_header=options.sequence_start_header,
        sequence_end_header=options.sequence_end_header,
        handler_times=options.handler_times,
        async_communication=spec.async_communication,
        continuous_batching=spec.continuous_batching,
    )


def worker_env(
    spec: ModelSpec, gpu_id: int | None, cpus: float, workers: int, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The child's environment: the server's own with paths, device and threads set.

    The model's directory is not on the path yet, and not the working directory (see ``process.py``): a model file
    named like a standard module (``queue.py``) would break the worker before it could say so. The worker puts it in
    front when it loads the model. ``workers`` is how many workers share the ``cpus``. Thread counts that the user set
    stay, unless the model's ``threads_per_worker`` says otherwise.
    """
    env = dict(os.environ if environ is None else environ)
    given = [os.path.abspath(entry) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    path = [*given, *_package_path(spec.python)]
    env.pop("PYTHONPATH", None)
    if path:
        env["PYTHONPATH"] = os.pathsep.join(path)
    env["PYTHONUNBUFFERED"] = "1"
    env.setdefault("PYTHONFAULTHANDLER", "1")  # a crash in native code leaves its Python stack in the log
    _tune(env)
    if gpu_id is None:
        env["CUDA_VISIBLE_DEVICES"] = ""
    else:
        env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # NVML's order, in which the ids were found
        env["CUDA_VISIBLE_DEVICES"] = str(gpu_id)
    if spec.threads_per_worker:
        env.update(dict.fromkeys(_THREADS, str(spec.threads_per_worker)))
    elif "OMP_NUM_THREADS" not in env:
        threads = str(max(1, int(cpus / max(1, workers))))
        for name in _THREADS:
            env.setdefault(name, threads)
    return env


def _tune(env: dict[str, str]) -> None:
    """Defaults of the C libraries that do not suit a process which computes the same thing again and again.

    Measured with EfficientNet-Lite0 in torch on 2 cores, one process per setting, in turn; the user's own values stay.
    """
    if "OMP_WAIT_POLICY" not in env:
        # A waiting OpenMP thread spins for milliseconds and starves the one it waits for as soon as anything else runs:
        # beside one busy process 132 to 180 ms an image by default, 57 to 67 like this; on idle cores no difference.
        env.setdefault("GOMP_SPINCOUNT", "10000")
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
    if not python:
        for entry in metadata.distributions(name="mlserve"):
            if Path(str(entry.locate_file(""))).resolve() in installed:  # editable: the child finds it the same way
                return ()
    return (str(parent),)
