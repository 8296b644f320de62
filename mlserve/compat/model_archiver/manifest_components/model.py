"""The entry ``model`` of a manifest."""

from __future__ import annotations

import json
import os
from typing import Any


class Model:
    """A model as the manifest names it: files by their base names, and only those that were given."""

    def __init__(
        self,
        model_name: str,
        serialized_file: str | None,
        handler: str,
        model_file: str | None = None,
        model_version: str | None = None,
        extensions: object = None,
        requirements_file: str | None = None,
        config_file: str | None = None,
    ) -> None:
        self.model_name = model_name
        self.serialized_file = os.path.basename(serialized_file) if serialized_file else None
        self.handler = os.path.basename(handler)
        self.model_file = model_file
        self.model_version = model_version
        self.extensions = extensions
        self.requirements_file = requirements_file
        self.config_file = os.path.basename(config_file) if config_file else None
        entries = {
            "modelName": model_name,
            "serializedFile": self.serialized_file,
            "handler": self.handler,
            "modelFile": os.path.basename(model_file or ""),
            "modelVersion": model_version,
            "extensions": extensions,
            "requirementsFile": os.path.basename(requirements_file or ""),
            "configFile": self.config_file,
        }
        needed = ("modelName", "handler")
        self.model_dict: dict[str, Any] = {k: value for k, value in entries.items() if value or k in needed}

    def __str__(self) -> str:
        return json.dumps(self.model_dict)

    __repr__ = __str__
