"""Models that are not a plain torch module: ONNX files, libraries compiled by AOTInductor, exported programs.

What each needs is imported when such a file is loaded.
"""

from __future__ import annotations

import importlib
import logging
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
SUFFIXES = (".onnx", ".so", ".pt2")
# A thread that waits for the next operator's work spins by default for milliseconds, also when the batch is done, and
# takes the core from the front end and from whom it waits for: 370 ms of CPU for a batch of 8 images on a busy machine
# where this takes 229.
SPIN_US = "50"


def load_runtime(path: Path, device: torch.device, handler_threads: int = 1) -> Any:
    """The model of a file with one of ``SUFFIXES``: an ``InferenceSession`` or a callable.

    Raises ``ValueError`` that names the file, and the package to install where one is missing.
    """
    if not path.is_file():
        raise ValueError(f"The manifest names {path.name}, but the archive has no such file")
    if path.suffix == ".onnx":
        return onnx_session(path, device, handler_threads)
    if path.suffix == ".so" or is_package(path):
        check_threads(path, handler_threads)
    return aot_library(path, device) if path.suffix == ".so" else exported(path, device)


def worker_threads() -> int:
    """This worker's share of the CPUs: the server divides them and says how many in this variable."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def worker_device(gpu: int | None) -> torch.device:
    """The worker's GPU where torch can use it, else the CPU."""
    import torch

    if gpu is not None and torch.cuda.is_available():
        return torch.device("cuda", int(gpu))
    if gpu is not None:
        logger.warning("This worker was given a GPU, but torch %s sees none: using the CPU", torch.__version__)
    return torch.device("cpu")


def onnx_session(path: Path, device: torch.device, handler_threads: int = 1) -> Any:
    """An ``onnxruntime.InferenceSession``, on the GPU if the worker has one."""
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ValueError(
            f"{path.name}: cannot load .onnx files without onnxruntime: pip install 'mlserve[onnx]' ({error})"
        ) from error
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    session = open_session(onnxruntime, path, providers, session_threads(worker_threads(), handler_threads))
    logger.info("Loaded %s with onnxruntime, providers %s", path.name, session.get_providers())
    return session


def session_threads(threads: int, handler_threads: int) -> int:
    """The threads of a session of onnxruntime that runs ``handler_threads`` batches at once, each by ``threads`` CPUs:
    one of these is the thread that brings the batch, and all batches share the session's others."""
    return handler_threads * (threads - 1) + 1


def open_session(onnxruntime: Any, path: Path, providers: list[Any], threads: int, **options: int) -> Any:
    """A session of ``threads`` threads; ``options`` are attributes of ``SessionOptions``. Raises ``ValueError``."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_US)
    for name, value in options.items():
        setattr(settings, name, value)
    try:
        return onnxruntime.InferenceSession(str(path), providers=providers, sess_options=settings)
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        raise ValueError(f"{path.name} is not an ONNX file that onnxruntime can run ({error})") from error


def run_onnx(session: Any, *inputs: Any) -> Any:
    """Run a session on tensors or arrays, given in the order of its inputs; one output comes back as a tensor."""
    import torch

    arrays = [value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value for value in inputs]
    names = [node.name for node in session.get_inputs()]
    if len(arrays) > len(names):
        raise ValueError(f"The ONNX model has the inputs {names}, got {len(arrays)}")
    outputs = [torch.from_numpy(output) for output in session.run(None, dict(zip(names, arrays, strict=False)))]
    return outputs[0] if len(outputs) == 1 else outputs


def is_session(model: Any) -> bool:
    """Whether ``model`` is an ONNX session, which is no callable."""
    return not callable(model) and hasattr(model, "run") and hasattr(model, "get_inputs")


def aot_library(path: Path, device: torch.device) -> Callable[..., Any]:
    """A shared library made by ``torch._export.aot_compile``."""
    import torch

    if device.type == "cuda":
        torch.cuda.set_device(device)  # aot_load takes no index
    load: Any = getattr(torch._export, "aot_load", None)
    if load is None:
        raise ValueError(f"{path.name}: torch {torch.__version__} cannot load libraries of AOTInductor")
    library: Callable[..., Any] = load(str(path), device.type)
    return library


def exported(path: Path, device: torch.device) -> Callable[..., Any]:
    """A ``.pt2`` file: a package of AOTInductor, or a program saved by ``torch.export.save``."""
    import torch

    if is_package(path):
        package: Callable[..., Any] = load_package(path, device)
        return package
    return torch.export.load(str(path)).module().to(device)


def is_package(path: Path) -> bool:
    """Whether a ``.pt2`` file is a package of AOTInductor. Raises ``ValueError`` for what is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("aotinductor" in name for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path.name} is not a .pt2 file: {error}") from error


def check_threads(path: Path, threads: int) -> None:
    """Raise ``ValueError`` for what AOTInductor compiled where ``threads`` batches are to be computed at once."""
    if threads > 1:
        raise ValueError(
            f"handlerThreads is {threads}, but {path.name} was compiled by AOTInductor, which keeps Python's lock "
            "while it computes: batches would take turns, each on its share of the CPUs. Leave it at 1"
        )


def load_package(path: Path, device: torch.device) -> Any:
    """A package of AOTInductor, on ``device``."""
    import torch

    index = -1 if device.index is None else device.index  # -1 is what a package for the CPU wants
    return torch._inductor.aoti_load_package(str(path), device_index=index)


def wants_compiled(pt2: Any) -> bool:
    """Whether the ``pt2`` section of model-config.yaml says that the model was compiled ahead of time."""
    options = pt2.get("export") if isinstance(pt2, Mapping) else None
    return isinstance(options, Mapping) and bool(options.get("aot_compile"))
