"""The section ``torch`` of model-config.yaml, and ``pt2``, TorchServe's name for the arguments of ``torch.compile``.

Which keys mean something depends on the kind of file: an exported program has its precision built in, weights have
not. A key that would do nothing is an error, not a model that is slower or coarser than its owner believes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..loading import GRAPH_MODES, check_mode, compile_arguments, register_backend
from ..runtimes import wants_compiled

if TYPE_CHECKING:
    from . import Source

DTYPES: Mapping[str, torch.dtype] = {
    "float16": torch.float16,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
KEYS: Mapping[str, Collection[str]] = {
    "weights": ("dtype", "autocast", "channels_last", "cuda_graphs", "model_class"),
    "TorchScript": ("dtype", "autocast", "channels_last", "cuda_graphs"),
    "torch.export": ("autocast", "channels_last", "cuda_graphs"),
    "AOTInductor": (),
}
"""Kind of file -> the keys of ``torch`` that it takes."""

COMPILE_KEYS = ("backend", "mode", "fullgraph", "dynamic", "options")


class Options(NamedTuple):
    """``dtype`` is of weights and floating inputs, ``None`` leaves them; ``compiled`` holds the arguments of
    ``torch.compile``, ``None`` for a model that is not to be compiled."""

    dtype: torch.dtype | None = None
    autocast: torch.dtype | None = None
    channels_last: bool = False
    cuda_graphs: bool = False
    model_class: str = ""
    compiled: Mapping[str, Any] | None = None

    @property
    def every_size(self) -> bool:
        """Whether the compiler makes something for each batch size, so that each has to be warmed up."""
        given = self.compiled or {}
        return given.get("dynamic") is False or (torch.cuda.is_available() and given.get("mode") in GRAPH_MODES)


def options_of(source: Source, kind: str) -> Options:
    """The options of a file of ``kind``. Raises ``ValueError`` that names a key which is unknown or does not fit."""
    given = source.options
    unknown = [str(key) for key in given if key not in KEYS[kind]]
    if unknown:
        others = {key for keys in KEYS.values() for key in keys}
        what = f"does nothing for {kind}" if set(unknown) <= others else "is unknown"
        known = f"known are {', '.join(KEYS[kind])}" if KEYS[kind] else "it takes none"
        raise ValueError(f"torch: {', '.join(unknown)} in model-config.yaml {what}; {known}")
    options = Options(
        dtype_of(given, "dtype"),
        dtype_of(given, "autocast"),
        _flag(given, "channels_last"),
        _flag(given, "cuda_graphs"),
        str(given.get("model_class") or ""),
        _compiled(source.config, kind),
    )
    if options.dtype is not None and options.autocast is not None:
        raise ValueError("torch: dtype and autocast in model-config.yaml are two ways to one end: keep one of them")
    if options.cuda_graphs:
        _check_graphs(options, source)
    check_mode(options.compiled, source.handler_threads)
    return options


def dtype_of(options: Mapping[str, Any], key: str) -> torch.dtype | None:
    """The dtype that an option names. Raises ``ValueError`` for one that is none."""
    value = options.get(key)
    if value is None:
        return None
    if value not in DTYPES:
        raise ValueError(f"torch: {key} in model-config.yaml must be one of {', '.join(DTYPES)}, got {value!r}")
    return DTYPES[value]


def _flag(options: Mapping[str, Any], key: str) -> bool:
    value = options.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"torch: {key} in model-config.yaml must be true or false, got {value!r}")
    return value


def _compiled(config: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    if "pt2" not in config or (kind == "AOTInductor" and wants_compiled(config["pt2"])):
        return None  # TorchServe has such files say that they were compiled
    arguments = compile_arguments(config["pt2"])
    if arguments is None:
        return None
    if kind not in ("weights", "torch.export"):
        raise ValueError(f"pt2 in model-config.yaml: torch.compile takes no {kind} model; remove it")
    unknown = [str(key) for key in arguments if key not in COMPILE_KEYS]
    if unknown:
        raise ValueError(
            f"pt2 in model-config.yaml: unknown {', '.join(unknown)}; torch.compile takes {', '.join(COMPILE_KEYS)}"
        )
    return arguments


def _check_graphs(options: Options, source: Source) -> None:
    if source.gpu is None or not torch.cuda.is_available():
        raise ValueError("torch: cuda_graphs in model-config.yaml needs a GPU, and this worker has none: remove it")
    mode = (options.compiled or {}).get("mode")
    if mode in GRAPH_MODES:
        raise ValueError(
            f"torch: cuda_graphs in model-config.yaml: pt2 with mode {mode} makes CUDA graphs itself: keep one of them"
        )


def compiled(module: Any, options: Options) -> Any:
    """``module`` as ``torch.compile`` makes it, where that is asked for. Raises ``ValueError`` with the reason."""
    if options.compiled is None:
        return module
    backend = str(options.compiled.get("backend", ""))
    try:
        register_backend(backend)
        if options.compiled.get("dynamic") is False:
            # One program for each batch size; beyond torch's 8 it would run the others uncompiled.
            torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit
        return torch.compile(module, **options.compiled)
    except ImportError as error:
        raise ValueError(f"pt2 in model-config.yaml: backend {backend} needs a package ({error})") from error
    except Exception as error:  # a backend is third-party code
        raise ValueError(f"pt2 in model-config.yaml: {str(error) or type(error).__name__}") from error
