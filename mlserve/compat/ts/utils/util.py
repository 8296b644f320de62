"""``ts.utils.util``: small helpers that handlers import."""

from __future__ import annotations

import enum
import functools
import inspect
import logging
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mlserve.handlers import labels

logger = logging.getLogger(__name__)

CLEANUP_REGEX = re.compile("<.*?>|&([a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});")


class PT2Backend(str, enum.Enum):
    """Backends of ``torch.compile`` that TorchServe's configuration may name."""

    EAGER = "eager"
    AOT_EAGER = "aot_eager"
    INDUCTOR = "inductor"
    NVFUSER = "nvfuser"
    AOT_NVFUSER = "aot_nvfuser"
    AOT_CUDAGRAPHS = "aot_cudagraphs"
    OFI = "ofi"
    FX2TRT = "fx2trt"
    ONNXRT = "onnxrt"
    IPEX = "ipex"
    TORCHXLA_TRACE_ONCE = "torchxla_trace_once"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    HPU_BACKEND = "hpu_backend"


class PredictionException(Exception):
    """Fail the whole batch with a status and a message of the handler's choice."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


def check_valid_pt2_backend(backend: str) -> bool:
    """Whether ``backend`` is one of :class:`PT2Backend`; if not, that is logged."""
    if backend in {member.value for member in PT2Backend}:
        return True
    logger.warning("%s is not a supported backend", backend)
    return False


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """The classes that ``module`` itself defines, by name; only subclasses of ``parent_class`` if it is given."""
    own = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == module.__name__]
    return [cls for cls in own if parent_class is None or issubclass(cls, parent_class)]


def load_label_mapping(mapping_file_path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Class index (as text) -> name, from a JSON file; None if there is no such file.

    Raises ``ValueError`` if it holds something else: a name is a text or a list that ends in one.
    """
    path = Path(mapping_file_path)
    mapping: dict[str, Any] | None = labels.load_label_mapping(path)
    if mapping is None:
        logger.warning("%r is missing. Inference output will not include class name.", str(path))
        return None
    wrong = [key for key, name in mapping.items() if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"{path}: the name of class {wrong[0]!r} is neither a text nor a list that ends in one")
    return mapping


def map_class_to_label(
    probs: list[Any], mapping: Mapping[str, Any] | None = None, lbl_classes: Sequence[Sequence[Any]] | None = None
) -> list[dict[Any, Any]]:
    """A row of probabilities -> ``{name: probability}``; ``lbl_classes`` has each row's classes, else 0, 1, 2..."""
    if not isinstance(probs, list):
        raise TypeError(f"The probabilities must be a list of lists, got {type(probs).__name__}")
    if mapping is not None and not isinstance(mapping, dict):
        raise TypeError(f"The mapping must be a dict, got {type(mapping).__name__}")
    classes = lbl_classes if lbl_classes is not None else [range(len(row)) for row in probs]
    return [
        {
            str(index) if mapping is None else mapping[str(index)]: value
            for index, value in zip(indices, row, strict=False)
        }
        for indices, row in zip(classes, probs, strict=False)
    ]


def get_yaml_config(yaml_file_path: str | os.PathLike[str]) -> Any:
    """What a YAML file holds."""
    import yaml

    return yaml.safe_load(Path(yaml_file_path).read_text(encoding="utf-8"))


def deprecated(version: Any, replacement: str = "", klass: type[Warning] = PendingDeprecationWarning) -> Any:
    """Decorate a function that ``replacement`` has taken the place of; a call warns with ``klass``."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            text = f"{function.__name__} is deprecated in {version} and moved to {replacement}"
            warnings.warn(text, klass, stacklevel=2)
            return function(*args, **kwargs)

        return wrapper

    return decorate
