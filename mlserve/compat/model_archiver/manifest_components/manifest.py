"""A manifest and the runtimes that it may name."""

from __future__ import annotations

import json
from datetime import datetime
from enum import Enum
from typing import Any

from mlserve.compat.model_archiver.manifest_components.model import Model
from mlserve.compat.model_archiver.version import __version__


class RuntimeType(Enum):
    """Values of ``runtime``."""

    PYTHON = "python"
    PYTHON3 = "python3"
    LSP = "LSP"


class Manifest:
    """``MAR-INF/MANIFEST.json``; its text is ``str(manifest)``."""

    def __init__(self, runtime: str, model: Model) -> None:
        self.creation_time = datetime.now().strftime("%d/%m/%Y %H:%M:%S")
        self.runtime = RuntimeType(runtime)
        self.model = model
        self.archiver_version = __version__
        self.manifest_dict: dict[str, Any] = {
            "createdOn": self.creation_time,
            "runtime": self.runtime.value,
            "model": model.model_dict,
            "archiverVersion": __version__,
        }

    def __str__(self) -> str:
        return json.dumps(self.manifest_dict, indent=2)

    __repr__ = __str__
