"""The handlers that ship with mlserve. They are loaded by name, never imported by the server itself."""

from __future__ import annotations

import os
from pathlib import Path

# Workers have it from their environment; `mlserve run` and `export` load models in their own process.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A manifest's handler name -> the module here that serves it, for names that archives in the wild use, and for
# formats that "auto" serves like every other.
ALIASES = {"base_handler": "base", "onnx": "auto"}

# The extra with what a handler needs, for those that serve one kind of model. Of the others the model's format says it.
EXTRAS = {"audio": "audio", "embedding": "transformers", "huggingface": "transformers", "llm": "transformers"}


def extra_of(handler: str, model: Path, runtime: str = "") -> str:
    """The extra that brings what a built-in handler needs for a model file; ``all`` where nothing says which."""
    from .formats import FORMATS, format_of

    if handler in EXTRAS:
        return EXTRAS[handler]
    try:
        return FORMATS[runtime or format_of(model)].extra
    except (KeyError, ValueError):
        return "all"
