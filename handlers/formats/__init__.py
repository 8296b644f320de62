"""One runtime per kind of model file, and the choice between them.

A runtime is made from a file or folder and answers batches of named arrays. Each lives in its own module here, imports
what it needs when it is made, and is an extra of the package; a missing one is named with its install line.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..signature import Signature

if TYPE_CHECKING:
    import numpy as np

    Arrays = dict[str, np.ndarray[Any, Any]]


class Runtime(Protocol):
    """A loaded model. ``name`` is for people: ``onnxruntime 1.20, CPUExecutionProvider``.

    One that refuses more than its signature can say has ``check(arrays)`` as well: it gets one item's inputs, before
    they join a batch, and raises :class:`mlserve.handler.PredictionError`. One that prepares itself for requests has
    ``warm(inputs)``, which warm-up calls instead of ``infer``, ``warm_sizes(batch_size)``, the batch sizes that it
    prepares for, and ``wants_warm_up``, whether to do so without being asked. One that is ``unchecked`` reads memory
    that is not the input's where that is too small: the shapes of its inputs must be known. ``input_errors`` are the
    exceptions by which its library refuses inputs (see :mod:`mlserve.handlers.misfits`).

    Several threads call ``infer`` at once, each of a copy (``copy.copy``): what they cannot share, ``__copy__`` makes.
    """

    name: str
    signature: Signature

    def infer(self, inputs: Arrays) -> Arrays:
        """The outputs of one batch. ``inputs`` fit the signature and have the batch axis, as have the outputs."""


@dataclass(frozen=True)
class Source:
    """What a runtime is made from: the model's file or folder, and what the worker and model-config.yaml say.

    ``gpu`` is the index of the worker's GPU, ``options`` the section of model-config.yaml that is called like the
    runtime (``torch`` for all of torch's). ``handler_threads`` batches are computed at once, each by ``threads`` CPUs.
    """

    path: Path
    gpu: int | None = None
    threads: int = 1
    handler_threads: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    code: Path | None = None
    own_files: bool = False  # nobody writes to the model's files: they may stay mapped


class Format(NamedTuple):
    """``module`` is here and has ``open_model(source) -> Runtime``; ``extra`` installs what it needs."""

    module: str
    extra: str
    suffixes: tuple[str, ...] = ()


FORMATS: Mapping[str, Format] = {
    "onnx": Format("onnx_session", "onnx", (".onnx", ".ort")),
    "torchscript": Format("torchscript", "torch", (".ts", ".torchscript")),
    "torch": Format("eager", "torch", (".pt", ".pth", ".bin", ".safetensors")),
    "export": Format("exported", "torch", (".pt2",)),
    "aotinductor": Format("exported", "torch"),
    "openvino": Format("openvino_model", "openvino", (".xml",)),
    "tensorrt": Format("tensorrt_engine", "tensorrt", (".plan", ".engine")),
    "tensorflow": Format("savedmodel", "tensorflow", (".pb",)),
    "sklearn": Format("sklearn_estimator", "sklearn", (".skops", ".joblib", ".pkl")),
    "xgboost": Format("xgboost_model", "xgboost", (".ubj", ".json")),
    "lightgbm": Format("lightgbm_model", "lightgbm", (".txt", ".lgb")),
}
"""Name in ``runtime:`` of model-config.yaml -> what runs it."""


def format_of(path: Path) -> str:
    """The name of the runtime for a file, by suffix and, where one suffix stands for several, by content.

    Raises ``ValueError`` for a file that no runtime knows.
    """
    if path.suffix in (".pt", ".pth", ".bin") and _holds(path, "/code/", "constants.pkl"):
        return "torchscript"
    for name, known in FORMATS.items():
        if path.suffix in known.suffixes:
            return name
    raise ValueError(
        f"{path.name} is of no format that is known by its name; set runtime: in model-config.yaml to one "
        f"of {', '.join(FORMATS)}"
    )


def _holds(path: Path, *parts: str) -> bool:
    """Whether ``path`` is a zip file with a member for each of ``parts``."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return all(any(part in name for name in names) for part in parts)


def source_of(path: Path, config: Mapping[str, Any], **more: Any) -> tuple[str, Source]:
    """(the name of the runtime, what it is made from) for a model file. Raises as :func:`format_of`, and
    ``ValueError`` for a section that is no mapping."""
    name = str(config.get("runtime") or format_of(path))
    of_torch = name in FORMATS and FORMATS[name].extra == "torch"
    section = config.get("torch" if of_torch else name)
    if section is not None and not isinstance(section, Mapping):
        raise ValueError(f"{'torch' if of_torch else name} in model-config.yaml must be a mapping, got {section!r}")
    return name, Source(path, options=section or {}, config=config, **more)


def open_model(name: str, source: Source) -> Runtime:
    """Load the model. Raises ``ValueError`` for a file that does not fit, ``ImportError`` with the install line."""
    if name not in FORMATS:
        raise ValueError(f"runtime: {name} in model-config.yaml is none of {', '.join(FORMATS)}")
    if not source.path.exists():
        raise ValueError(f"The manifest names {source.path.name}, but the archive has no such file")
    chosen = FORMATS[name]
    try:
        opened: Runtime = importlib.import_module(f"{__name__}.{chosen.module}").open_model(source)
    except ImportError as error:
        raise ImportError(
            f"{source.path.name} needs the package {error.name}: pip install 'mlserve[{chosen.extra}]' ({error})"
        ) from error
    return opened
