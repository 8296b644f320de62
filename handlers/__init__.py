"""The handlers that ship with mlserve. They are loaded by name, never imported by the server itself."""

from __future__ import annotations

import os

# Workers have it from their environment; `mlserve run` and `export` load models in their own process.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A manifest's handler name -> the module here that serves it, for names that archives in the wild use, and for
# formats that "auto" serves like every other.
ALIASES = {"base_handler": "base", "onnx": "auto"}
