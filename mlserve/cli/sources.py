"""Which settings file counts, for ``mlserve start`` and for the ``torchserve`` command, and reading it.

The two differ in where they look. ``mlserve`` takes ``--config``, ``MLSERVE_CONFIG``, ``mlserve.toml``; its snapshots
hold models only, the settings being in the file. ``torchserve`` takes ``TS_CONFIG_FILE``, ``--ts-config``, the newest
snapshot (which is a whole configuration), ``config.properties``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mlserve.errors import SettingError
from mlserve.settings import Settings, all_options, find_config_file, load_settings
from mlserve.settings.properties import PropertiesError, Property, read_properties
from mlserve.settings.snapshot_files import newest_snapshot, snapshot_directory
from mlserve.settings.torchserve_models import read_snapshot
from mlserve.settings.values import Given

PROPERTIES_SUFFIXES = (".properties", ".cfg")  # snapshots are .cfg


class CommandLine(NamedTuple):
    """What was given on the command line, as far as it concerns settings. ``flags`` are by ``section.field``."""

    config: Path | None = None
    flags: Mapping[str, Any] = {}
    profile: str = ""
    ts_config: Path | None = None


def make_command_line(flags: Mapping[str, Any], more_models: Sequence[str] = ()) -> CommandLine:
    """``flags`` with the models that were named without a flag, which are added to ``models.load``."""
    found = dict(flags)
    if more_models:
        found["models.load"] = [*found.get("models.load", []), *more_models]
    if "models.load" in found:  # each value may itself be a comma list, as in config.properties
        found["models.load"] = ",".join(found["models.load"])
    return CommandLine(flags=found)


def as_arguments(line: CommandLine) -> list[str]:
    """What was given on the command line, as arguments for another process."""
    known = {item.key: item for item in all_options()}
    named = {"--config": line.config, "--ts-config": line.ts_config, "--profile": line.profile}
    arguments = [f"{flag}={value}" for flag, value in named.items() if value]
    for key, value in line.flags.items():
        flag = known[key].flag
        if isinstance(value, bool):
            arguments.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            arguments.append(f"{flag}={value}")
    return arguments


def read_settings(line: CommandLine) -> Settings:
    """Load the settings for this process: its environment, its working directory, and what the command line gave.

    Raises :class:`SettingError`.
    """
    if line.config is not None and line.ts_config is not None:
        raise SettingError("--config and --ts-config both name a settings file: give one")
    path, properties = _file(line)
    entries = _read(path, os.environ) if path is not None and properties else None
    return load_settings(
        config_file=path, flags=line.flags, environ=os.environ, properties=entries, profile=line.profile
    )


def with_restored_models(settings: Settings, line: CommandLine) -> Settings:
    """The settings with the models of the newest snapshot, if ``models.snapshots`` asks for them.

    A ``config.properties`` names its own models. Raises :class:`SettingError` for a snapshot that cannot be read.
    """
    if not settings.models.snapshots or settings.model_snapshot is not None or _file(line)[1]:
        return settings
    newest = newest_snapshot(snapshot_directory(settings))
    if newest is None:
        return settings
    for key, value, number in reversed(_read(newest, os.environ)):
        if key == "model_snapshot":
            note = f"models come from the snapshot {newest}, not from models.load (--no-snapshots starts without it)"
            snapshot = read_snapshot(value, f"{newest}:{number}")
            return replace(settings, model_snapshot=snapshot, notes=(*settings.notes, note))
    raise SettingError(f"{newest}: a snapshot without model_snapshot; --no-snapshots starts without it")


def read_torchserve_settings(
    *,
    ts_config: Path | None = None,
    model_store: str = "",
    workflow_store: str = "",
    models: Sequence[str] = (),
    ncs: bool = False,
    disable_token_auth: bool = False,
    enable_model_api: bool = False,
    environ: Mapping[str, str],
    directory: Path,
) -> Settings:
    """The settings of a server that the ``torchserve`` command starts in ``directory``.

    ``disable_token_auth`` can only turn tokens off and ``enable_model_api`` the API only on; variables ``TS_...`` beat
    both where the file lets them. The newest snapshot is the settings file if none is named, unless ``ncs``. Raises
    :class:`SettingError`.
    """
    flags = _torchserve_flags(model_store, workflow_store, models, ncs, disable_token_auth, enable_model_api)
    path = find_config_file(ts_config, environ, directory, torchserve=True)
    if path is None and not ncs:
        bare = load_settings(flags=flags, environ=environ, properties=[])
        path = newest_snapshot(directory / snapshot_directory(bare))
    if path is None and (directory / "config.properties").is_file():
        path = directory / "config.properties"
    entries = _read(directory / path, environ) if path is not None else []
    settings = load_settings(config_file=path, flags=flags, environ=environ, properties=entries)
    if settings.model_snapshot is not None and models:
        note = (
            f"--models is ignored: the models come from the snapshot {path} (--no-config-snapshots starts without it)"
        )
        settings = replace(settings, notes=(*settings.notes, note))
    return settings


def _torchserve_flags(
    model_store: str, workflow_store: str, models: Sequence[str], ncs: bool, no_tokens: bool, model_api: bool
) -> dict[str, Any]:
    given = [
        (model_store, "models.store", model_store, "--model-store"),
        (workflow_store, "models.workflow_store", workflow_store, "--workflow-store"),
        (models, "models.load", ",".join(models), "--models"),
        (ncs, "models.snapshots", False, "--no-config-snapshots"),
        (no_tokens, "auth.tokens", False, "--disable-token-auth"),
        (no_tokens, "server.insecure", True, "--disable-token-auth"),
        (model_api, "models.model_api", True, "--enable-model-api"),
    ]
    return {key: Given(key, value, f"flag {flag}") for wanted, key, value, flag in given if wanted}


def _file(line: CommandLine) -> tuple[Path | None, bool]:
    """The settings file, and whether it is a ``config.properties``."""
    if line.ts_config is not None:
        return find_config_file(line.ts_config, os.environ, Path.cwd(), torchserve=True), True
    path = find_config_file(line.config, os.environ, Path.cwd())
    return path, path is not None and path.suffix in PROPERTIES_SUFFIXES


def _read(path: Path, environ: Mapping[str, str]) -> list[Property]:
    try:
        return read_properties(path, environ)
    except PropertiesError as error:
        raise SettingError(str(error)) from None
