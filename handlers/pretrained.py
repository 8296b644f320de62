"""Folders that Hugging Face ``transformers`` wrote: what the handlers of such models share.

Nothing is ever downloaded: the folder is the model, and the library is told to be offline before it is imported. Code
that lies in a folder runs only if model-config.yaml says ``trust_remote_code: true``. A folder whose weights do not
fill the model is refused; the library would fill the gaps with random numbers and only warn.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import orjson

from mlserve.handler import Context, PredictionError, Response

from .items import body_of
from .optional import required
from .runtimes import worker_device

logger = logging.getLogger(__name__)

SHARED = ("model", "trust_remote_code", "dtype")
"""Options that every section for such a folder has."""


def library(handler: str) -> Any:
    """The package ``transformers``, offline. Raises ``ImportError`` with the install line."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = required("transformers", handler, "transformers", "'mlserve[transformers]'")
    transformers.utils.logging.disable_progress_bar()  # they would be lines of the worker's log
    return transformers


def section(context: Context, name: str, known: Collection[str]) -> dict[str, Any]:
    """The section ``name`` of model-config.yaml. Raises ``ValueError`` that names an unknown key."""
    options = (context.model_yaml_config or {}).get(name) or {}
    if not isinstance(options, Mapping):
        raise ValueError(f"{name} in model-config.yaml must be a mapping, got {options!r}")
    unknown = [str(key) for key in options if key not in known]
    if unknown:
        raise ValueError(f"{name} in model-config.yaml: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return dict(options)


def folder_of(context: Context, options: Mapping[str, Any], where: str) -> Path:
    """The folder with ``config.json``: option ``model``, by default the model's directory itself."""
    folder = Path(context.system_properties["model_dir"], str(options.get("model") or "."))
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"There is no config.json in {folder}: a transformers folder is expected there; "
            f"{where}: {{model: FOLDER}} in model-config.yaml names another one"
        )
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    """``config.json``. Raises ``ValueError`` if it is no JSON object."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{folder / 'config.json'} holds no JSON object")
    return config


def device_of(context: Context) -> Any:
    """The worker's GPU where torch can use it, else the CPU, as a ``torch.device``."""
    return worker_device(context.system_properties.get("gpu_id"))


def load(part: Any, folder: Path, options: Mapping[str, Any], **more: Any) -> Any:
    """``part.from_pretrained`` of the folder alone. Raises ``ValueError`` with what the library said."""
    trusted = options.get("trust_remote_code") is True
    try:
        return part.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trusted, **more)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{folder}: {part.__name__} cannot load it: {error}") from error


def load_tokenizer(transformers: Any, folder: Path, options: Mapping[str, Any]) -> Any:
    """The folder's tokenizer. Without its files the library makes one that knows no word at all, which is refused."""
    tokenizer = load(transformers.AutoTokenizer, folder, options)
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(f"There is no tokenizer in {folder}: tokenizer.json or the files of its kind are missing")
    return tokenizer


def load_model(
    auto: Any, folder: Path, options: Mapping[str, Any], device: Any, spare: Callable[[str], bool] = lambda key: False
) -> Any:
    """The model in eval mode on ``device``. ``spare`` says which weights may be missing.

    Option ``dtype`` is ``auto`` (as the folder says, the default), ``float32``, ``float16`` or ``bfloat16``.
    """
    dtype = options.get("dtype", "auto")
    if dtype not in ("auto", "float32", "float16", "bfloat16"):
        raise ValueError(f"dtype in model-config.yaml must be auto, float32, float16 or bfloat16, got {dtype!r}")
    model, found = load(auto, folder, options, dtype=dtype, output_loading_info=True)
    missing = sorted(key for key in found["missing_keys"] if not spare(key))
    if missing or found["mismatched_keys"]:
        wrong = missing or [str(key) for key in found["mismatched_keys"]]
        raise ValueError(
            f"{folder}: the weights do not fill {type(model).__name__}: {', '.join(wrong[:5])}"
            f"{' …' if len(wrong) > 5 else ''} missing or of another shape; is it a model for another task?"
        )
    return model.to(device).eval()


def longest(tokenizer: Any, config: Any) -> int | None:
    """Tokens that the model takes; ``None`` if neither the tokenizer nor the model has a limit."""
    known = [
        limit
        for limit in (getattr(tokenizer, "model_max_length", None), getattr(config, "max_position_embeddings", None))
        if isinstance(limit, int) and 0 < limit < 1 << 30  # a tokenizer without a limit says 10^30
    ]
    return min(known, default=None)


def request_of(row: Any) -> tuple[Any, Mapping[str, Any]]:
    """A row's input and its parameters: ``{"inputs": …, "parameters": {…}}``, or the input alone.

    Bytes become text, those of a form's fields too; images are taken from the row as they are.
    Raises :class:`PredictionError` with status 400.
    """
    value = body_of(row)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return text_of(bytes(value)), {}
    if not isinstance(value, Mapping):
        return value, {}
    value = {key: text_of(bytes(one)) if isinstance(one, (bytes, bytearray)) else one for key, one in value.items()}
    if "inputs" not in value:
        return value, {}
    unknown = [str(key) for key in value if key not in ("inputs", "parameters")]
    parameters = value.get("parameters") or {}
    if unknown or not isinstance(parameters, Mapping):
        raise PredictionError(400, 'Expected {"inputs": …, "parameters": {…}}, and parameters to be an object')
    return value["inputs"], parameters


def text_of(value: bytes) -> str:
    """UTF-8 text. Raises :class:`PredictionError` with status 400."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise PredictionError(400, f"The body is no UTF-8 text: {error.reason} at byte {error.start}") from None


def answer(value: Any) -> Response:
    """``value`` as JSON, with NumPy's arrays and numbers in it: float32 gets as few digits as it has."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), "application/json")


Check = tuple[Callable[[Any], bool], str]
"""A test of a parameter, and in words what it takes."""


def checked(parameters: Mapping[str, Any], known: Mapping[str, Check]) -> dict[str, Any]:
    """The parameters that were given. Raises :class:`PredictionError` 400 for an unknown one or an unfit value."""
    for name, value in parameters.items():
        if name not in known:
            raise PredictionError(400, f"Unknown parameter {name!r}; known are {', '.join(known) or 'none'}")
        fits, takes = known[name]
        if value is not None and not fits(value):
            raise PredictionError(400, f"Parameter {name!r} must be {takes}, got {str(value)[:80]!r}")
    return {name: value for name, value in parameters.items() if value is not None}


def defaults(options: Mapping[str, Any], known: Mapping[str, Check], where: str) -> dict[str, Any]:
    """The section's ``parameters``. Raises ``ValueError`` where :func:`checked` would refuse them in a request."""
    try:
        return checked(options.get("parameters") or {}, known)
    except PredictionError as error:
        raise ValueError(f"{where}: parameters in model-config.yaml: {error.message}") from None


LARGEST = 2**31 - 1  # what the libraries behind a parameter can hold


def whole(low: int) -> Check:
    """A whole number from ``low`` that 31 bits hold."""
    return lambda value: type(value) is int and low <= value <= LARGEST, f"a whole number from {low} to {LARGEST}"


def number(low: float, high: float) -> Check:
    """A number from ``low`` to ``high``."""
    return lambda value: type(value) in (int, float) and low <= value <= high, f"a number from {low:g} to {high:g}"


def one_of(*choices: str) -> Check:
    """One of these texts."""
    return lambda value: value in choices, f"one of {', '.join(choices)}"


FLAG: Check = (lambda value: type(value) is bool, "true or false")
