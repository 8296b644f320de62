"""Turn the files of an archive into a torch module: eager code with weights, or TorchScript.

torch is imported inside the functions, so that handlers which bring another framework run where torch is not installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import logging
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def model_files(directory: Path, manifest: Mapping[str, Any] | None) -> tuple[Path | None, Path | None]:
    """(model file, weights) of a model. A directory that was never archived has no manifest to name them: there it is
    ``model.py`` and the only .pt or .pth file. Raises ``ValueError`` if there are several of the latter.
    """
    if manifest:
        model = manifest.get("model", {})
        code, weights = (directory / model[key] if model.get(key) else None for key in ("modelFile", "serializedFile"))
        return code, weights
    found = sorted(path for path in directory.iterdir() if path.suffix in (".pt", ".pth"))
    if len(found) > 1:
        raise ValueError(f"{directory} has no manifest and several weights: {', '.join(path.name for path in found)}")
    code = directory / "model.py"
    return (code if code.is_file() else None), (found[0] if found else None)


def check_files(*paths: Path | None) -> None:
    """Raise ``ValueError`` for a file that the manifest names and the archive does not hold."""
    for path in paths:
        if path is not None and not path.is_file():
            raise ValueError(f"The manifest names {path.name}, but the archive has no such file")


def load_eager(
    model_file: Path, weights: Path | None, model_class: str = "", *, mapped: bool = False
) -> torch.nn.Module:
    """Make the ``nn.Module`` defined in ``model_file`` and fill in its ``state_dict``, on the CPU.

    ``mapped``: parameters are views of the mapped file, which all processes that map it share, instead of copies. The
    file must not be written to then as long as the module lives; it may be removed.
    """
    model = find_model_class(model_file, model_class)()
    if weights is None:
        return model
    try:
        state = _state(weights, mapped)
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(
            f"{weights.name} cannot be read as a state_dict ({type(error).__name__}: {error}). "
            "Save it with torch.save(model.state_dict(), path)"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{weights.name} holds a {type(state).__name__}; a state_dict (name -> tensor) was expected")
    try:
        if mapped:
            state = _as_in(model, state)
        model.load_state_dict(state, assign=mapped)
    except RuntimeError as error:
        raise ValueError(f"{weights.name} does not fit {type(model).__name__} of {model_file.name}: {error}") from error
    if mapped:
        _give_back_memory()
    return model


def _give_back_memory() -> None:
    """Return what is free in the heap to the system: here the weights that the module had been made with.

    Workers tell glibc to keep what is freed, which suits the buffers of batches and not this.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # musl has no such function, and keeps nothing
            ctypes.CDLL(None).malloc_trim(0)


def _state(weights: Path, mapped: bool) -> Any:
    """What a checkpoint or a safetensors file holds. The latter is mapped in any case, a checkpoint of torch before 1.6
    in none."""
    if weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(weights)
    import torch

    mapped = mapped and zipfile.is_zipfile(weights)
    # weights_only: a checkpoint is data; unpickling it must not run code of whoever made it.
    return torch.load(weights, map_location="cpu", weights_only=True, mmap=mapped)


def _as_in(model: torch.nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """``state`` with the dtypes and memory layout of ``model``, which copying would keep and assigning would not."""
    import torch

    own = model.state_dict()
    fitted = dict(state)
    for name, value in state.items():
        there = own.get(name)
        if not isinstance(value, torch.Tensor) or not isinstance(there, torch.Tensor) or value.shape != there.shape:
            continue  # load_state_dict says what is wrong
        if value.dtype != there.dtype or value.stride() != there.stride():
            fitted[name] = there.clone().copy_(value)
    return fitted


def find_model_class(model_file: Path, model_class: str = "") -> type[torch.nn.Module]:
    """The one ``nn.Module`` subclass that ``model_file`` itself defines, or the one called ``model_class``."""
    import torch

    source = _import_file(model_file)
    found = {
        name: value
        for name, value in vars(source).items()
        if isinstance(value, type) and issubclass(value, torch.nn.Module) and value.__module__ == source.__name__
    }
    if model_class:
        if model_class not in found:
            raise ValueError(f"{model_file.name} has no nn.Module called {model_class}; it has {sorted(found)}")
        return found[model_class]
    if len(found) != 1:
        raise ValueError(
            f"{model_file.name} must define exactly one nn.Module class, found {sorted(found) or 'none'}. "
            "Set handler: {model_class: NAME} in model-config.yaml"
        )
    return next(iter(found.values()))


def _import_file(path: Path) -> ModuleType:
    """Import ``path`` under its own name, or under a private one where a module of that name is loaded already."""
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(f"_{path.stem}_model" if loaded else path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look a class's module up there
    spec.loader.exec_module(module)
    return module


def load_torchscript(path: Path, device: torch.device) -> torch.nn.Module:
    """Load a TorchScript archive."""
    import torch

    try:
        with warnings.catch_warnings():
            # torch 2.13 calls torch.jit deprecated; whoever serves the file is not the one who can export it anew.
            warnings.filterwarnings("ignore", message=".*torch.jit.load.*", category=DeprecationWarning)
            load: Any = torch.jit.load
            module: torch.nn.Module = load(str(path), map_location=device)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path.name} is not a TorchScript file. If it holds a state_dict, archive it together with "
            f"--model-file FILE.py, the file with its nn.Module class ({error})"
        ) from error
    return module


def compile_model(module: torch.nn.Module, pt2: Any, handler_threads: int = 1) -> torch.nn.Module:
    """Apply the ``pt2`` section of model-config.yaml.

    A backend that cannot be set up leaves the model as it is, with a warning: the answers are the same.
    """
    import torch

    choices = compile_arguments(pt2)
    if choices is None:
        return module
    check_mode(choices, handler_threads)
    text = ", ".join(f"{key} {value}" for key, value in choices.items()) or "torch.compile's defaults"
    try:
        register_backend(str(choices.get("backend", "")))
        compiled: Any = torch.compile(module, **choices)
    except Exception as error:  # a backend is third-party code
        logger.warning("Compiling the model with %s failed, serving it uncompiled: %s", text, error)
        return module
    logger.info("Compiled model with %s", text)
    return cast("torch.nn.Module", compiled)


def compile_arguments(pt2: Any) -> dict[str, Any] | None:
    """The arguments of ``torch.compile`` in the ``pt2`` section of model-config.yaml; ``None`` for "do not".

    It is a backend name, ``compile: {enable: true, backend, mode, ...}``, or the arguments without that level. Raises
    ``ValueError`` for anything else.
    """
    options = {"backend": pt2} if isinstance(pt2, str) else pt2
    if not isinstance(options, dict) or not isinstance(options.get("compile", {}), dict):
        raise ValueError(f"pt2 in model-config.yaml must be a backend name or a mapping, got {pt2!r}")
    if options.get("export"):
        raise ValueError(
            "pt2: export in model-config.yaml is not supported for a model file; it is for archives "
            "whose serialized file is a compiled library (.so, .pt2)"
        )
    choices: dict[str, Any] = dict(options.get("compile", options))
    return choices if choices.pop("enable", "compile" not in options) else None


GRAPH_MODES = ("reduce-overhead", "max-autotune")
"""Modes in which ``torch.compile`` makes CUDA graphs of its own, one per batch size."""


def check_mode(arguments: Mapping[str, Any] | None, threads: int) -> None:
    """Raise ``ValueError`` for a compiled model whose CUDA graphs only the thread that made them can run."""
    import torch

    mode = (arguments or {}).get("mode")
    if threads > 1 and mode in GRAPH_MODES and torch.cuda.is_available():
        raise ValueError(
            f"handlerThreads is {threads}, but pt2 in model-config.yaml with mode {mode} makes CUDA graphs that belong "
            "to one thread: leave out one of them"
        )


def register_backend(name: str) -> None:
    """Backends of other packages are known to torch once their package has been imported."""
    package = {"openvino": "openvino.torch", "tensorrt": "torch_tensorrt", "torch_tensorrt": "torch_tensorrt"}.get(name)
    if package:
        importlib.import_module(package)
