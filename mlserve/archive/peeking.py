"""A look at a model from outside: whether its worker will import torch. A guess, made before anything is unpacked."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePath

_TORCH_FILES = (".pt", ".pth", ".pt2", ".bin", ".safetensors", ".ts", ".torchscript")
_IMPORT = re.compile(
    rb"^\s*(import torch|from torch|from ts\.torch_handler|from mlserve\.handlers\.base)\b", re.MULTILINE
)
_MANIFEST = "MAR-INF/MANIFEST.json"
_LARGEST = 1 << 20  # bytes of a file that is looked into


def imports_torch(path: Path) -> bool:
    """Whether the manifest names a file of torch's, or the handler imports torch. False for what cannot be read."""
    try:
        if path.is_dir():
            return _by_manifest(lambda name: (path / name).read_bytes()[:_LARGEST])
        if path.suffix == ".py":
            return bool(_IMPORT.search(path.read_bytes()[:_LARGEST]))
        if path.suffix in _TORCH_FILES:
            return True
        with zipfile.ZipFile(path) as archive:
            return _by_manifest(lambda name: archive.open(name).read(_LARGEST))
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile):
        return False


def _by_manifest(read: Callable[[str], bytes]) -> bool:
    model = json.loads(read(_MANIFEST))["model"]
    if any(PurePath(str(model.get(key) or "")).suffix in _TORCH_FILES for key in ("serializedFile", "modelFile")):
        return True
    handler = str(model.get("handler") or "").partition(":")[0]
    return bool(_IMPORT.search(read(handler if handler.endswith(".py") else f"{handler}.py")))
