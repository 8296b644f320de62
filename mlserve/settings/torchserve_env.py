"""The variables that override a ``config.properties``: ``TS_<KEY>``, which beat the file and the command line.

TorchServe reads them only where the file says ``enable_envvars_config=true``, and ``TS_ALLOWED_URLS`` only where it
says ``use_env_allowed_urls=true`` as well. ``TS_OPEN_INFERENCE_PROTOCOL`` counts always, and only ``oip`` turns it on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

OPEN_INFERENCE = "ts_open_inference_protocol"
# Keys that no variable sets, because TorchServe's names for them in its own code do not start with TS_.
FILE_ONLY = frozenset(("models", "model_snapshot", "metric_time_interval", "system_metrics_cmd", "use_native_io"))
FILE_ONLY |= {"io_ratio", "version", "python", "tsConfigFile", "enable_envvars_config", "use_env_allowed_urls"}
FILE_ONLY |= {"vmargs", "plugins_path", "metrics_format"}


class Entry(NamedTuple):
    """A key's text and where it stands; ``forced`` if it comes from a variable."""

    key: str
    value: str
    source: str
    forced: bool = False


def variable(key: str) -> str:
    """The variable of a key."""
    if key == "token_expiration_min":
        return "TS_TOKEN_EXPIRATION_TIME_MIN"
    return key.upper() if key.startswith("ts_") else f"TS_{key.upper()}"


def overriding(
    entries: Mapping[str, str], environ: Mapping[str, str], known: Collection[str]
) -> tuple[list[Entry], list[str]]:
    """What the variables say about ``known`` keys, and notes about those that are set but do not count."""
    found: list[Entry] = []
    notes: list[str] = []
    wanted = _is_true(entries.get("enable_envvars_config"))
    for key in sorted(set(known) - FILE_ONLY):
        name = variable(key)
        value = environ.get(name)
        if value is None or (key == OPEN_INFERENCE and not value):
            continue
        if key == OPEN_INFERENCE:
            found.append(Entry(key, "true" if value == "oip" else "false", f"env {name}", forced=True))
        elif not wanted:
            notes.append(f"env {name} is set and not read: enable_envvars_config is not true")
        elif key == "allowed_urls" and not _is_true(entries.get("use_env_allowed_urls")):
            notes.append(f"env {name} is set and not read: use_env_allowed_urls is not true")
        else:
            found.append(Entry(key, value, f"env {name}", forced=True))
    return found, notes


def _is_true(text: str | None) -> bool:
    return text is not None and text.strip().lower() == "true"
