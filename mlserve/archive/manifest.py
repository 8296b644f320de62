"""MAR-INF/MANIFEST.json: what an archive says about itself, and how its handler text is read.

The layout is torch-model-archiver's, so that either tool's archives load in either server. ``checksums`` (member ->
SHA-256 in hex) is mlserve's addition; readers that don't know it pass over it. Standard library only: workers import
this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlserve.errors import ArchiveError

MANIFEST_DIR = "MAR-INF"
MANIFEST_PATH = "MAR-INF/MANIFEST.json"
MAX_MANIFEST_BYTES = 16 << 20  # 100,000 members with their checksums
DEFAULT_VERSION = "1.0"
RUNTIMES = ("python", "python3", "LSP")

BUILT_IN = frozenset(
    {
        "base_handler",
        "text_classifier",
        "image_classifier",
        "object_detector",
        "image_segmenter",
        "dali_image_classifier",
        "vllm_handler",
        "trt_llm_handler",
    }
)
"""Names that torch-model-archiver never takes for a file; the server brings the code."""

BUILT_IN_LSP = frozenset({"BaseHandler", "TorchScriptHandler"})

# A version is a path segment of URLs: no separators, nothing that ends or escapes a path.
_VERSION = re.compile(r"[^\s/\\?#%\x00-\x1f\x7f](?:[^/\\?#%\x00-\x1f\x7f]{0,126}[^\s/\\?#%\x00-\x1f\x7f])?")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_version(version: object) -> str:
    """Return ``version`` as text if it can be a model's version, else raise :class:`ArchiveError`."""
    text = str(version) if isinstance(version, (str, int, float)) and not isinstance(version, bool) else ""
    if not _VERSION.fullmatch(text) or not text.isprintable() or text in {".", "..", "all"}:
        raise ArchiveError(
            f"Model version {version!r} is not allowed: use 1 to 128 printable characters without '/', '\\', '?', '#'"
            " or '%', and not '.', '..' or 'all'"
        )
    return text


def split_handler(handler: str) -> tuple[str, str]:
    """``path/file.py:function`` -> (``path/file.py``, ``function``); the function is ``""`` when not given.

    Raises :class:`ArchiveError` when what follows the last colon is no Python name, or nothing stands before it.
    """
    path, colon, function = handler.rpartition(":")
    if not colon:
        path, function = handler, ""
    elif not _FUNCTION.fullmatch(function):
        raise ArchiveError(f"Handler {handler!r}: {function!r} after ':' is not a function name")
    if not path.strip() or path.endswith("/"):
        raise ArchiveError(f"Handler {handler!r} names no file or built-in handler")
    return path, function


def module_of(handler: str) -> str:
    """The module a worker imports for ``handler``: base name without ``.py``, as TorchServe looks it up."""
    return split_handler(handler)[0].rsplit("/", 1)[-1].removesuffix(".py")


def normal_handler(handler: str) -> str:
    """``dir/file.py:function`` -> ``file:function``, the form of :class:`mlserve.core.model.ModelSpec`.

    Raises :class:`ArchiveError` for text that cannot name a module.
    """
    function = split_handler(handler)[1]
    module = module_of(handler)
    if not module or module.startswith(".") or "\\" in module or any(ord(char) < 32 for char in module):
        raise ArchiveError(f"Handler {handler[:80]!r} does not name a Python module")
    return f"{module}:{function}" if function else module


def parse_manifest(text: str | bytes, *, named: bool = False) -> dict[str, Any]:
    """Read and check a manifest; a missing ``modelVersion`` becomes ``1.0``. Unknown keys are kept.

    As in TorchServe a missing runtime is ``python``, and a name is not needed where the caller has one (``named``).
    Raises :class:`ArchiveError`; for the four entries that a model needs the messages are TorchServe's own.
    """
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"Failed to parse manifest file {MANIFEST_PATH}: {error}") from None
    if not isinstance(manifest, dict):
        raise ArchiveError(f"Failed to parse manifest file {MANIFEST_PATH}: expected a JSON object")
    model = manifest.setdefault("model", {})
    if not isinstance(model, dict):
        raise ArchiveError("Missing Model entry in manifest file.")
    name = model.get("modelName")
    if isinstance(name, (int, float)) and not isinstance(name, bool):
        model["modelName"] = name = str(name)
    if not named and (not isinstance(name, str) or not name):
        raise ArchiveError("Model name is not defined.")
    if model.get("modelVersion") is None:
        model["modelVersion"] = DEFAULT_VERSION
    if model["modelVersion"] == "":
        raise ArchiveError("Model version is not defined.")
    model["modelVersion"] = check_version(model["modelVersion"])
    runtime = manifest.setdefault("runtime", "python")
    if runtime in ("PYTHON", "PYTHON3"):
        manifest["runtime"] = runtime = runtime.lower()
    if runtime not in RUNTIMES:
        raise ArchiveError("Runtime is not defined or invalid.")
    for key in ("handler", "modelFile", "serializedFile", "requirementsFile", "configFile"):
        if model.get(key) is not None and not isinstance(model[key], str):
            raise ArchiveError(f"Manifest entry model.{key} must be text, got {type(model[key]).__name__}")
    return manifest


def read_manifest(model_dir: Path, *, named: bool = False) -> dict[str, Any] | None:
    """The checked manifest of an unpacked model, or ``None`` where there is none.

    Raises :class:`ArchiveError` as :func:`parse_manifest` does.
    """
    path = model_dir / MANIFEST_PATH
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ArchiveError(f"{MANIFEST_PATH} is larger than {MAX_MANIFEST_BYTES} bytes")
        return parse_manifest(path.read_bytes(), named=named)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArchiveError(f"Cannot read {MANIFEST_PATH}: {error}") from None


def checksums_of(manifest: Mapping[str, Any] | None) -> dict[str, str]:
    """Member -> SHA-256 in hex, empty for archives of other tools. Raises :class:`ArchiveError` if ill-formed."""
    found = (manifest or {}).get("checksums")
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ArchiveError("Manifest entry checksums must map member names to SHA-256 values")
    return {name: value.lower() for name, value in found.items()}
