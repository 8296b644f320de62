"""Which folders are models of Hugging Face ``transformers``, and which built-in handler serves them.

Told by the folder's own files: ``config.json`` that names an architecture, with weights beside it. Standard library
only; whether the library can load it is found out by the worker.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EMBEDDING = "mlserve.handlers.embedding"
HUGGINGFACE = "mlserve.handlers.huggingface"
LLM = "mlserve.handlers.llm"

CONFIG = "config.json"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_MAX_CONFIG_BYTES = 4 << 20


def handler_for(directory: Path) -> str:
    """The handler for a folder; ``""`` unless transformers wrote it.

    ``modules.json`` makes it a sentence-transformers folder: ``embedding``. Causal language models go to ``llm``, all
    else to ``huggingface``. Python files make it somebody's own model, unless ``config.json`` says that they are its.
    """
    config = _config(directory / CONFIG)
    if not ("model_type" in config or "architectures" in config) or not _has_weights(directory):
        return ""
    if (directory / "handler.py").is_file() or ("auto_map" not in config and any(directory.glob("*.py"))):
        return ""
    if (directory / "modules.json").is_file():
        return EMBEDDING
    named = config.get("architectures") or [""]
    return LLM if str(named[0]).endswith(("ForCausalLM", "LMHeadModel")) else HUGGINGFACE


def _has_weights(directory: Path) -> bool:
    return any(any(directory.glob(pattern)) for pattern in _WEIGHTS)


def _config(path: Path) -> dict[str, Any]:
    """The file's object; empty where there is none."""
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            return {}
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
