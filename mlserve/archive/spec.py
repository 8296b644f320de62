"""From what an archive says, what the settings say and what the caller says to one :class:`ModelSpec`.

Precedence, lowest first: built-in default, ``[defaults]``, ``[model.NAME]``, ``[model."NAME:VERSION"]``,
model-config.yaml, the register call. TorchServe's two exceptions are kept: in model-config.yaml, timeouts and a valid
pair of worker numbers beat the call. ``provenance`` records which source each field came from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mlserve.archive.manifest import DEFAULT_VERSION, RUNTIMES, check_version, normal_handler
from mlserve.archive.names import check_member_name
from mlserve.archive.yamlfile import DEFAULT_CONFIG_NAME, MAX_CONFIG_BYTES, parse_config
from mlserve.core.model import ModelKey, ModelSpec, check_name
from mlserve.errors import ArchiveError, ErrorKind, InvalidInput, ServeError

log = logging.getLogger(__name__)

HANDLER_KEYS = frozenset(
    {"inputs", "outputs", "warmup", "runtime", "features", "handler", "torch", "pt2", "onnx", "openvino", "sklearn"}
    | {"tensorflow", "huggingface", "embedding", "audio", "image", "llm"}
)
"""Keys of model-config.yaml that the handlers that ship with mlserve read, for spelling."""

YAML_FIRST = frozenset({"response_timeout", "startup_timeout", "min_workers", "max_workers"})


@dataclass(frozen=True)
class Option:
    """A field that sources below the caller may set: its key in model-config.yaml, what it takes, and a test."""

    key: str
    takes: str
    fits: Callable[[Any], bool]


def _is_int(low: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_number(low: float, *, above: bool = False) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return low < value < 1e9 if above else low <= value < 1e9

    return fits


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_one_of(*choices: str) -> Callable[[Any], bool]:
    return lambda value: value in choices


def _is_id_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(_is_int(0)(item) for item in value)


OPTIONS: Mapping[str, Option] = {
    "batch_size": Option("batchSize", "an integer of 1 or more", _is_int(1)),
    "max_batch_delay_ms": Option("maxBatchDelay", "milliseconds, 0 or more", _is_number(0)),
    "batch_policy": Option(
        "batchPolicy",
        "'adaptive', 'bucket', 'eager' or 'window'",
        _is_one_of("adaptive", "bucket", "eager", "window"),
    ),
    "latency_target_ms": Option("latencyTarget", "milliseconds, 0 or more", _is_number(0)),
    "min_workers": Option("minWorkers", "an integer of 1 or more", _is_int(1)),
    "max_workers": Option("maxWorkers", "an integer of 0 or more", _is_int(0)),
    "job_queue_size": Option("jobQueueSize", "an integer of 1 or more", _is_int(1)),
    "response_timeout": Option("responseTimeout", "seconds, more than 0", _is_number(0, above=True)),
    "startup_timeout": Option("startupTimeout", "seconds, more than 0", _is_number(0, above=True)),
    "max_retry_timeout": Option("maxRetryTimeoutInSec", "seconds, 0 or more", _is_number(0)),
    "retry_on_worker_death": Option("retryOnWorkerDeath", "an integer of 0 or more", _is_int(0)),
    "isolate_errors": Option("isolateErrors", "true or false", _is_bool),
    "device_type": Option("deviceType", "'cpu' or 'gpu'", _is_one_of("cpu", "gpu")),
    "device_ids": Option("deviceIds", "a list of integers of 0 or more", _is_id_list),
    "threads_per_worker": Option("threadsPerWorker", "an integer of 0 or more", _is_int(0)),
    "preprocess_threads": Option("preprocessThreads", "an integer of 0 or more", _is_int(0)),
    "handler_threads": Option("handlerThreads", "an integer of 1 or more", _is_int(1)),
    "client_timeout_ms": Option("clientTimeoutInMills", "milliseconds, 0 or more", _is_number(0)),
    "use_job_ticket": Option("useJobTicket", "true or false", _is_bool),
    "async_communication": Option("asyncCommunication", "true or false", _is_bool),
    "continuous_batching": Option("continuousBatching", "true or false", _is_bool),
    "sequence_batching": Option("sequenceBatching", "true or false", _is_bool),
    "sequence_max_idle_ms": Option("sequenceMaxIdleMSec", "an integer of 0 or more", _is_int(0)),
    "sequence_timeout_ms": Option("sequenceTimeoutMSec", "an integer of 0 or more", _is_int(0)),
    "max_sequence_job_queue_size": Option("maxSequenceJobQueueSize", "an integer of 1 or more", _is_int(1)),
    "max_num_sequence": Option("maxNumSequence", "an integer of 1 or more", _is_int(1)),
    "parallel_type": Option(
        "parallelType", "'pp', 'tp', 'pptp' or 'custom'", _is_one_of("", "pp", "tp", "pptp", "custom")
    ),
    "parallel_level": Option("parallelLevel", "an integer of 0 or more", _is_int(0)),
    "torchrun": Option("torchrun", "a mapping", lambda value: isinstance(value, Mapping)),
    "use_venv": Option("useVenv", "true or false", _is_bool),
    "python": Option("", "the path of an interpreter", lambda value: isinstance(value, str)),
}
"""ModelSpec field -> what model-config.yaml may say about it. The field's own name is taken as a key as well.
``python`` is the operator's to choose, not the archive's."""

_OWN = frozenset(
    {"batch_policy", "latency_target_ms", "retry_on_worker_death", "isolate_errors"}
    | {"threads_per_worker", "preprocess_threads", "handler_threads"}
)
"""Those whose key TorchServe does not read."""

_ANY_CASE = frozenset({"device_type", "parallel_type"})  # in model-config.yaml
_ZERO_IS_UNSET = frozenset({"max_workers", "job_queue_size", "parallel_level"})  # in model-config.yaml

# 0 is a number that TorchServe takes from a register call, and that makes the start of workers fail, not the call.
_CALL_MINIMUM = {"min_workers": 0, "response_timeout": 0, "startup_timeout": 0}


@dataclass
class Sources:
    """What a spec is made from. ``overrides`` are the caller's, with ``model_name``, ``handler`` and ``runtime``."""

    model_dir: Path
    url: str
    stem: str  # the name if nobody gives one
    overrides: Mapping[str, Any]
    manifest: Mapping[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    config_name: str = DEFAULT_CONFIG_NAME
    defaults: Mapping[str, Any] = field(default_factory=dict)
    model_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    default_handler: str = ""
    owned_dir: bool = True


def read_config(model_dir: Path, manifest: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """A model's configuration and the name of its file, (``{}``, ``""``) without one.

    The manifest names the file; where there is no manifest, ``model-config.yaml`` is taken if it is there. Raises
    :class:`ArchiveError` for a file that is missing, outside the model directory, too large or ill-formed.
    """
    name = (manifest["model"].get("configFile") or "") if manifest else DEFAULT_CONFIG_NAME
    if not name:
        return {}, ""
    path = model_dir / check_member_name(name)
    if manifest is None and not path.is_file():
        return {}, ""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ArchiveError(f"{name} is larger than {MAX_CONFIG_BYTES} bytes")
        return parse_config(path.read_bytes(), name), name
    except OSError as error:
        raise ArchiveError(f"Cannot read {name}, which the manifest names: {error.strerror or error}") from None


def build_spec(sources: Sources) -> ModelSpec:
    """Merge all sources. Raises :class:`InvalidInput` for a call that cannot be right, :class:`ArchiveError` for an
    archive that names no handler. Wrong values in model-config.yaml are logged and left out."""
    model = sources.manifest["model"] if sources.manifest else {}
    call = {key: value for key, value in sources.overrides.items() if value is not None and value != ""}
    provenance: dict[str, str] = {}
    name = check_name(
        str(_first(provenance, "model_name", call.get("model_name"), model.get("modelName"), sources.stem))
    )
    version = check_version(call.get("version") or model.get("modelVersion") or DEFAULT_VERSION)
    runtime = _runtime(call, sources.manifest, provenance)
    handler = _handler(sources, call, model, provenance)
    values = _merge(sources, call, name, version, provenance)
    return ModelSpec(
        key=ModelKey(name, version),
        model_dir=str(sources.model_dir),
        handler=handler,
        url=sources.url,
        manifest=dict(sources.manifest or {}),
        config=dict(sources.config),
        runtime=runtime,
        workflow=str(call.get("workflow") or ""),
        listed=call.get("listed") is not False,
        owned_dir=sources.owned_dir,
        provenance=provenance,
        **values,
    )


def _first(provenance: dict[str, str], key: str, call: Any, manifest: Any, default: Any) -> Any:
    for value, source in ((call, "register"), (manifest, "manifest"), (default, "default")):
        if value:
            provenance[key] = source
            return value
    return ""


def _runtime(call: Mapping[str, Any], manifest: Mapping[str, Any] | None, provenance: dict[str, str]) -> str:
    if call.get("runtime") and call["runtime"] not in RUNTIMES:
        raise InvalidInput(f"Invalid RuntimeType value: {call['runtime']}")
    runtime = _first(provenance, "runtime", call.get("runtime"), (manifest or {}).get("runtime"), "python")
    if runtime == "LSP":
        raise ServeError("Runtime LSP (C++ handlers) is not supported: use python", kind=ErrorKind.INVALID_INPUT)
    return str(runtime)


def _handler(sources: Sources, call: Mapping[str, Any], model: Mapping[str, Any], provenance: dict[str, str]) -> str:
    handler = _first(provenance, "handler", call.get("handler"), model.get("handler"), sources.default_handler)
    if not handler and sources.manifest is None:
        handler = _only_file(sources.model_dir)
        provenance["handler"] = "found in the directory"
    if not handler:
        raise ArchiveError(
            f"Model at {sources.url} names no handler: give handler=, or set models.default_handler. A folder needs "
            "none if it is a SavedModel, or a folder of transformers or sentence-transformers with its weights"
        )
    return normal_handler(str(handler))


def _only_file(model_dir: Path) -> str:
    """``handler.py``, or the only Python file there is."""
    files = sorted(path.name for path in model_dir.glob("*.py"))
    return "handler.py" if "handler.py" in files else files[0] if len(files) == 1 else ""


def _merge(
    sources: Sources, call: Mapping[str, Any], name: str, version: str, provenance: dict[str, str]
) -> dict[str, Any]:
    known = {item.name for item in fields(ModelSpec)} & OPTIONS.keys()
    values: dict[str, Any] = {}
    provenance.update(dict.fromkeys(known, "default"))
    key = f"{name}:{version}"
    layers: list[tuple[str, Mapping[str, Any]]] = [
        ("default", _with_workers(sources.defaults)),
        (f"mlserve.toml [model.{name}]", _with_workers(sources.model_settings.get(name, {}))),
        (f'mlserve.toml [model."{key}"]', _with_workers(sources.model_settings.get(key, {}))),
    ]
    yaml = dict(_from_yaml(sources.config, f"{name}: {sources.config_name}"))
    explicit = {field: _checked(field, value) for field, value in _with_workers(call).items() if field in known}
    layers += [(sources.config_name, yaml), ("register", explicit)]
    layers += [(sources.config_name, {field: value for field, value in yaml.items() if field in YAML_FIRST})]
    for source, layer in layers:
        for field_name in known & layer.keys():
            values[field_name], provenance[field_name] = layer[field_name], source
    _check_parallel(values, provenance, sources.config_name, name)
    _check_threads(values, provenance, sources.config_name, name)
    if values.get("latency_target_ms") and values.get("batch_policy", "eager") != "adaptive":
        log.warning("%s: latencyTarget counts with batchPolicy adaptive only", name)
    if "device_ids" in values:
        values["device_ids"] = tuple(values["device_ids"])
    low = values.get("min_workers", 1)
    if values.get("max_workers", 1) < low:
        values["max_workers"], provenance["max_workers"] = low, provenance["min_workers"]
    return values


# Other ways to have several requests in a worker, none of which goes with handlerThreads above 1.
BESIDE_THREADS = (
    "async_communication",
    "continuous_batching",
    "sequence_batching",
    "parallel_level",
    "preprocess_threads",
)


def _beside_threads(values: Mapping[str, Any]) -> str:
    """What in ``values`` leaves no room for batches in threads side by side, as a sentence; empty = nothing."""
    threads = values.get("handler_threads", 1)
    other = next((one for one in BESIDE_THREADS if values.get(one, 0) > 0), None)
    if threads < 2 or other is None:
        return ""
    return f"handlerThreads {threads} cannot go with {OPTIONS[other].key} {values[other]}"


def _check_threads(values: dict[str, Any], provenance: dict[str, str], config_name: str, name: str) -> None:
    """Of model-config.yaml, threads beside what does not go with them are dropped with a warning, of anybody else
    refused."""
    problem = _beside_threads(values)
    if not problem:
        return
    if provenance["handler_threads"] != config_name:
        raise InvalidInput(f"{name}: {problem}: leave one of them out")
    log.warning("%s: %s: handlerThreads ignored", name, problem)
    values["handler_threads"], provenance["handler_threads"] = 1, "default"


def _with_workers(layer: Mapping[str, Any]) -> dict[str, Any]:
    """``workers`` is both numbers; 0 leaves them to whoever starts the model."""
    result = dict(layer)
    count = result.pop("workers", 0)
    return {"min_workers": count, "max_workers": count, **result} if count else result


def _checked(field_name: str, value: Any) -> Any:
    """A value of the caller's: wrong ones are refused, not skipped."""
    fits, low = OPTIONS[field_name].fits, _CALL_MINIMUM.get(field_name)
    if not (fits(value) or (low is not None and value == low and not isinstance(value, bool))):
        raise InvalidInput(f"{field_name} must be {OPTIONS[field_name].takes}, got {value!r}")
    return value


def _misspelt(config: Mapping[str, Any], where: str) -> Iterator[str]:
    """Name the keys that look like one that means something. Others are the handler's own affair."""
    known = {key for name, option in OPTIONS.items() for key in (name, option.key) if key} | HANDLER_KEYS
    for key in config:
        if key not in known and (near := get_close_matches(str(key), known, n=1, cutoff=0.82)):
            yield f"{where}: nothing here reads {key}; did you mean {near[0]}? Only the handler sees it"


def check_config(config: Mapping[str, Any], where: str) -> list[str]:
    """What is odd in a configuration that is yet to be packed; ``where`` is its file.

    Raises :class:`ArchiveError` for a value that is impossible, or beside what it cannot go with, under a key that only
    mlserve reads: that is a mistake. Under TorchServe's keys, and in archives that exist, such a value is passed over.
    """
    found, misfits = _fitting(config)
    for text in (*(text for name, text in misfits if name in _OWN), _beside_threads(found)):
        if text:
            raise ArchiveError(f"{where}: {text}")
    return [*_misspelt(config, where), *(f"{where}: {text}; a server will ignore it" for _, text in misfits)]


def _fitting(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The fields that a configuration sets, and of the values that do not fit field and why."""
    found: dict[str, Any] = {}
    misfits: list[tuple[str, str]] = []
    for field_name, option in OPTIONS.items():
        for key in dict.fromkeys((field_name, option.key)):
            if not option.key or key not in config:
                continue
            value = config[key]
            if field_name in _ANY_CASE and isinstance(value, str):
                value = value.lower()
            if field_name in _ZERO_IS_UNSET and value == 0 and not isinstance(value, bool):
                continue
            if option.fits(value):
                found[field_name] = value
            else:
                misfits.append((field_name, f"{key} must be {option.takes}, got {value!r}"))
    return found, misfits


def _from_yaml(config: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """The fields that a model's configuration sets, as far as the values fit."""
    found, misfits = _fitting(config)
    for problem in (*_misspelt(config, where), *(f"{where}: {text}; ignored" for _, text in misfits)):
        log.warning("%s", problem)
    if "torchrun" in found:  # its processes are the level
        count = found["torchrun"].get("nproc-per-node", 1)
        found["parallel_level"] = count if _is_int(1)(count) else 1
    low, high = found.get("min_workers"), found.get("max_workers")
    if high is not None and high < (low or 1):
        log.warning("%s: maxWorkers %s is less than minWorkers %s; both ignored", where, high, low or 1)
        found.pop("min_workers", None)
        del found["max_workers"]
    yield from found.items()


def _check_parallel(values: dict[str, Any], provenance: dict[str, str], config_name: str, name: str) -> None:
    """Of what model-config.yaml says, a type without a level, or the other way round, counts as neither.

    The other half may come from any source. A level of the settings counts by itself: it is the GPUs of a worker.
    """
    halves = {"parallel_type": "parallelType", "parallel_level": "parallelLevel (or torchrun)"}
    there = [field_name for field_name in halves if values.get(field_name)]
    if len(there) == 1 and provenance[there[0]] == config_name:
        (given,) = there
        (missing,) = halves.keys() - there
        log.warning("%s: %s: %s without %s; ignored", name, config_name, halves[given], halves[missing])
        values.pop(given)
        provenance[given] = "default"
