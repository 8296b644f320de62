"""TorchServe's ``metrics.yaml``: which metrics there are, with their types, units and dimensions.

What is declared there wins over what a handler says, because dashboards were made for it. A file that cannot be used
ends the start: with a part of the metrics missing, nobody would notice before they are needed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mlserve.errors import SettingError

log = logging.getLogger(__name__)

KINDS = ("counter", "gauge", "histogram")
HOSTNAME = "Hostname"
_SECTIONS = ("dimensions", "ts_metrics", "model_metrics")
_FIELDS = ("name", "unit", "dimensions")


@dataclass(frozen=True)
class Declared:
    """One metric. ``labels`` are its dimensions as they are shown: a handler's metric has the host's name added."""

    name: str
    unit: str
    kind: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class MetricsConfig:
    """Metrics by name: the server's own, and those of handlers."""

    server: Mapping[str, Declared]
    model: Mapping[str, Declared]


def read_metrics_config(path: str = "") -> MetricsConfig:
    """Read ``path``, or the default set if it is empty. Raises :class:`SettingError` that names ``metrics.config``."""
    import yaml  # only servers that are asked for TorchServe's metrics pay for it

    try:
        text = Path(path).read_bytes() if path else resources.files("mlserve.protocols").joinpath(DEFAULT).read_bytes()
        document = yaml.safe_load(text)
    except OSError as error:
        raise SettingError(f"metrics.config: {path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SettingError(f"metrics.config: {path} is not valid YAML: {error}") from None
    try:
        return _parse(document)
    except _Wrong as error:
        raise SettingError(f"metrics.config: {path}: {error}") from None


DEFAULT = "metrics.yaml"


class _Wrong(Exception):
    """What is wrong in the file."""


def _parse(document: Any) -> MetricsConfig:
    if not isinstance(document, dict):
        raise _Wrong("it must be a mapping with ts_metrics and model_metrics")
    if unknown := [str(key) for key in document if key not in _SECTIONS]:
        raise _Wrong(f"unknown key {unknown[0]!r}; there are {', '.join(_SECTIONS)}")
    return MetricsConfig(
        _section(document.get("ts_metrics"), "ts_metrics", ()),
        _section(document.get("model_metrics"), "model_metrics", (HOSTNAME,)),
    )


def _section(value: Any, section: str, added: tuple[str, ...]) -> dict[str, Declared]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _Wrong(f"{section} must be a mapping of {', '.join(KINDS)}")
    found: dict[str, Declared] = {}
    for kind, items in value.items():
        if kind not in KINDS:
            raise _Wrong(f"{section}.{kind}: unknown type of metric; there are {', '.join(KINDS)}")
        if not isinstance(items, (list, type(None))):
            raise _Wrong(f"{section}.{kind} must be a list")
        for number, item in enumerate(items or ()):
            declared = _metric(item, kind, f"{section}.{kind}[{number}]", added)
            if declared.name in found:
                log.warning("metrics.config declares %s twice; the later one counts", declared.name)
            found[declared.name] = declared
    return found


def _metric(item: Any, kind: str, where: str, added: tuple[str, ...]) -> Declared:
    if not isinstance(item, dict):
        raise _Wrong(f"{where} must be a mapping with {', '.join(_FIELDS)}")
    if unknown := [str(key) for key in item if key not in _FIELDS]:
        raise _Wrong(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(_FIELDS)}")
    for field in ("name", "unit"):
        if not isinstance(item.get(field), str) or not item[field]:
            raise _Wrong(f"{where}: {field} cannot be empty")
    dimensions = item.get("dimensions") or []
    if not isinstance(dimensions, list) or not all(isinstance(name, str) and name for name in dimensions):
        raise _Wrong(f"{where}: dimensions must be a list of names")
    if len(set(dimensions)) != len(dimensions):
        raise _Wrong(f"{where}: a dimension is there twice")
    return Declared(item["name"], item["unit"], kind, (*dimensions, *added))
