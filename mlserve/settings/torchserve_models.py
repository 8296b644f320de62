"""The two JSON values of a ``config.properties``: ``models`` (settings per version) and ``model_snapshot``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlserve.errors import SettingError
from mlserve.settings.values import Given, shown

MODEL_KEYS = {
    "minWorkers": "min_workers",
    "maxWorkers": "max_workers",
    "batchSize": "batch_size",
    "maxBatchDelay": "max_batch_delay_ms",
    "responseTimeout": "response_timeout",
    "startupTimeout": "startup_timeout",
    "parallelLevel": "parallel_level",
}
_NOT_HERE = {
    "marName": "load_models names the archives",
    "runtimeType": "the archive says how it runs",
}
_COUNTS = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay")


@dataclass
class ModelTables:
    """``tables`` maps ``name:version`` to (field -> Given); ``default_versions`` maps names to versions."""

    tables: dict[str, dict[str, Given]] = field(default_factory=dict)
    default_versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_models(text: str, source: str) -> ModelTables:
    """Translate the value of ``models``. Raises :class:`SettingError` for what is not JSON of its form."""
    result = ModelTables()
    for name, versions in _checked(_json(text, source, "models"), source, "models").items():
        for version, fields in versions.items():
            _read_version(name, version, fields, source, result)
    return result


def read_snapshot(text: str, source: str) -> Mapping[str, Any]:
    """The value of ``model_snapshot``, checked. Raises :class:`SettingError` for what cannot be restored."""
    snapshot = _json(text, source, "model_snapshot")
    models = _checked(snapshot.get("models"), source, "model_snapshot")
    for name, versions in models.items():
        for version, state in versions.items():
            place = f"{source}: model_snapshot: {name} {version}"
            if not isinstance(state.get("marName"), str) or not state["marName"]:
                raise SettingError(
                    f"{place}: marName: expected the name of an archive, got {shown(state.get('marName'))}"
                )
            for key in _COUNTS:
                if isinstance(state.get(key), bool) or not isinstance(state.get(key), (int, float)) or state[key] < 0:
                    raise SettingError(f"{place}: {key}: expected a number of 0 or more, got {shown(state.get(key))}")
    return snapshot


def _json(text: str, source: str, key: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SettingError(f"{source}: {key}: expected JSON, but {error}") from None
    if not isinstance(value, dict):
        raise SettingError(f"{source}: {key}: expected a JSON object of models, got {text[:60]!r}")
    return value


def _checked(models: Any, source: str, key: str) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    if not isinstance(models, dict):
        raise SettingError(f"{source}: {key}: expected a JSON object of models, got {shown(models)}")
    for name, versions in models.items():
        if not isinstance(versions, dict) or not all(isinstance(item, dict) for item in versions.values()):
            raise SettingError(f"{source}: {key}: {name!r} must map each version to an object of settings")
    return models


def _read_version(name: str, version: str, fields: Mapping[str, Any], source: str, result: ModelTables) -> None:
    table = result.tables.setdefault(f"{name}:{version}", {})
    for key, value in fields.items():
        place = f"{source}: models: {key} of {name} {version}"
        if key == "defaultVersion":
            if not isinstance(value, bool):
                raise SettingError(f"{place}: expected true or false, got {shown(value)}")
            if value:
                result.default_versions[name] = version
        elif key not in MODEL_KEYS:
            reason = _NOT_HERE.get(key, "it is not a setting of a model")
            result.notes.append(f"{place} is accepted and ignored: {reason}")
        elif isinstance(value, int) and not isinstance(value, bool) and value <= 0:
            result.notes.append(f"{place} is {value}, which leaves it at the default")
        else:
            table[MODEL_KEYS[key]] = Given(f"model.{name}:{version}.{MODEL_KEYS[key]}", value, source)
