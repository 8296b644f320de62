"""Model files and folders that are served as they are: no archive, no handler.

The store makes up the manifest that an archive of nothing but that file would have; the built-in handler then finds
the runtime. Settings come from ``NAME.yaml`` beside the file, else from ``model-config.yaml``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlserve.archive import pretrained
from mlserve.archive.manifest import DEFAULT_VERSION
from mlserve.archive.yamlfile import DEFAULT_CONFIG_NAME

# In full: a Python file of that name beside the model is not meant.
HANDLER = "mlserve.handlers.auto"
TABULAR = "mlserve.handlers.tabular"

SUFFIXES: Mapping[str, str] = {
    **dict.fromkeys((".onnx", ".ort", ".pt", ".pth", ".ts", ".torchscript", ".pt2", ".safetensors", ".xml"), HANDLER),
    **dict.fromkeys((".plan", ".engine"), HANDLER),
    **dict.fromkeys((".skops", ".joblib", ".pkl", ".ubj", ".json", ".txt", ".lgb"), TABULAR),
}
"""Suffix of a model file -> the built-in handler that serves it."""

FOLDERS: Mapping[str, str] = {"saved_model.pb": HANDLER}
"""File that makes a folder a model -> the built-in handler that serves it."""

_WEIGHTS = (".pt", ".pth", ".safetensors")
"""Suffixes of weights; TorchScript files, which need no code, have the first two as well."""

_BEGINS: Mapping[str, bytes] = {".xml": b"<net", ".json": b'"learner"', ".txt": b"tree\n"}
"""What stands in the first bytes of a model, for suffixes that other files have as well."""


def is_model_file(path: Path) -> bool:
    """Whether ``path`` is a file that a runtime knows by its suffix, and if that says little, by how it begins."""
    if path.suffix not in SUFFIXES or not path.is_file():
        return False
    mark = _BEGINS.get(path.suffix)
    if mark is None:
        return True
    with path.open("rb") as file:
        return mark in file.read(256)


def lacks_code(path: Path) -> bool:
    """Whether ``path`` holds weights only, and the Python file of their module is not beside it."""
    if path.suffix not in _WEIGHTS or (path.parent / "model.py").is_file():
        return False
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        return not any(name.endswith("/constants.pkl") for name in archive.namelist())


def manifest_for(path: Path) -> dict[str, Any]:
    """The manifest of a model that is the file ``path``; its directory is the model's."""
    return _manifest(path, path.stem, SUFFIXES[path.suffix])


def manifest_for_folder(directory: Path) -> dict[str, Any] | None:
    """The manifest of a model that is the folder ``directory``; ``None`` unless it holds one of ``FOLDERS``,
    or transformers wrote it."""
    for marker, handler in FOLDERS.items():
        if (directory / marker).is_file():
            return _manifest(directory / marker, directory.name, handler)
    pretrained_handler = pretrained.handler_for(directory)
    return _manifest(directory / pretrained.CONFIG, directory.name, pretrained_handler) if pretrained_handler else None


def _manifest(path: Path, name: str, handler: str) -> dict[str, Any]:
    model = {"modelName": name, "modelVersion": DEFAULT_VERSION, "handler": handler, "serializedFile": path.name}
    for config in (f"{name}.yaml", DEFAULT_CONFIG_NAME):
        if (path.parent / config).is_file():
            model["configFile"] = config
            break
    return {"runtime": "python", "model": model}
