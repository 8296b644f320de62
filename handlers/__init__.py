"""The handlers that ship with mlserve. They are loaded by name, never imported by the server itself."""

from __future__ import annotations

# A manifest's handler name -> the module here that serves it, for names that archives in the wild use, and for
# formats that "model" serves like every other.
ALIASES = {"base_handler": "base", "onnx": "model"}
