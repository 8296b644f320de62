"""Model files that are served as they are: no archive, no handler.

The store makes up the manifest that an archive of nothing but that file would have; the built-in handler ``model``
then finds the runtime. Settings come from ``NAME.yaml`` beside the file, else from ``model-config.yaml``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlserve.archive.manifest import DEFAULT_VERSION
from mlserve.archive.yamlfile import DEFAULT_CONFIG_NAME

HANDLER = "mlserve.handlers.model"  # in full: a file model.py beside the model is its code, not its handler
SUFFIXES = (".onnx", ".ort", ".pt", ".pth", ".ts", ".torchscript", ".pt2", ".safetensors")


def is_model_file(path: Path) -> bool:
    """Whether ``path`` is a file that a runtime knows by its suffix."""
    return path.suffix in SUFFIXES and path.is_file()


def manifest_for(path: Path) -> dict[str, Any]:
    """The manifest of a model that is the file ``path``; its directory is the model's."""
    model = {"modelName": path.stem, "modelVersion": DEFAULT_VERSION, "handler": HANDLER, "serializedFile": path.name}
    for config in (f"{path.stem}.yaml", DEFAULT_CONFIG_NAME):
        if (path.parent / config).is_file():
            model["configFile"] = config
            break
    return {"runtime": "python", "model": model}
