"""Layering the sources: flags over environment over file over defaults, remembering where each value came from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlserve.errors import SettingError
from mlserve.settings.option import Option
from mlserve.settings.profiles import ENVIRONMENT, PROFILES
from mlserve.settings.toml_source import Lines, read_toml
from mlserve.settings.torchserve import FromProperties, Property, map_properties
from mlserve.settings.tree import SECTIONS, Settings, all_options, model_options
from mlserve.settings.values import Given, convert, shown

PREFIX = "MLSERVE_"
CONFIG_ENV = "MLSERVE_CONFIG"
TORCHSERVE_CONFIG_ENV = "TS_CONFIG_FILE"
PROFILE_ENV = "MLSERVE_PROFILE"
DEFAULT_FILE = "mlserve.toml"
# Variables of other parts of mlserve, which are no settings of the server.
OTHER_ENV = re.compile(r"MLSERVE_(CONFIG|PROFILE|INFERENCE_URL|MANAGEMENT_URL|VENV|WORKER_\w+|TEST_\w+|BENCH_\w+)")
# What Kubernetes injects into every pod for a Service called mlserve or mlserve-something ("service links").
_SERVICE_LINK = re.compile(r"MLSERVE_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


def find_config_file(
    config: Path | None, environ: Mapping[str, str], directory: Path, *, torchserve: bool = False
) -> Path | None:
    """The settings file to read: ``--config``, else ``MLSERVE_CONFIG``, else ``mlserve.toml`` in ``directory``.

    With ``torchserve``, ``config`` is what ``--ts-config`` says: ``TS_CONFIG_FILE`` comes before it, and nothing is
    looked for.
    """
    if torchserve:
        return Path(environ[TORCHSERVE_CONFIG_ENV]) if environ.get(TORCHSERVE_CONFIG_ENV) else config
    if config is not None:
        return config
    if environ.get(CONFIG_ENV):
        return Path(environ[CONFIG_ENV])
    default = directory / DEFAULT_FILE
    return default if default.is_file() else None


def load_settings(
    *,
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    properties: Sequence[Property] | None = None,
    profile: str = "",
) -> Settings:
    """Build the tree from its sources.

    ``profile`` names the defaults to start from; else ``MLSERVE_PROFILE`` does, or a ``profile`` at the top of the TOML
    file; a ``config.properties`` means "torchserve". ``config_file`` is a TOML file, or just the name for messages when
    ``properties`` holds the parsed entries of a ``config.properties``. ``flags`` maps ``section.field`` to what was
    given on the command line. Raises :class:`SettingError` for a key nobody knows, a value of the wrong type or out of
    range; it names the place. A value of ``flags`` may be a :class:`Given`, for flags that are none of the tree's.
    """
    known = {item.key: item for item in all_options()}
    environ = environ or {}
    chosen_profile = profile or environ.get(PROFILE_ENV, "")
    mapped, values = FromProperties(), []
    models: dict[str, dict[str, Given]] = {}
    if properties is not None:
        mapped = map_properties(properties, config_file.name if config_file else "config.properties", environ)
        values, models = mapped.values, mapped.models.tables
        chosen_profile = chosen_profile or "torchserve"
        if config_file is not None:
            mapped.entries["tsConfigFile"] = str(config_file)
    elif config_file is not None:
        values, models, named = _from_toml(config_file, known)
        chosen_profile = chosen_profile or named
    layers: list[Iterable[Given]] = [
        _from_profile(chosen_profile),
        values,
        _from_foreign_environ(chosen_profile, environ),
        _from_environ(environ, known),
        _from_flags(flags or {}, known),
        mapped.forced,
    ]

    chosen: dict[str, Any] = {}
    sources = dict.fromkeys(known, "default")
    for layer in layers:
        for given in layer:
            chosen[given.key] = _converted(known[given.key], given)
            sources[given.key] = given.source
    return _build(chosen, models, sources, mapped, chosen_profile)


def _build(
    chosen: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Given]],
    sources: dict[str, str],
    mapped: FromProperties,
    profile: str,
) -> Settings:
    per_model = model_options()
    overrides: dict[str, dict[str, Any]] = {}
    for name, table in models.items():
        overrides[name] = {field: _converted(per_model[field], given) for field, given in table.items()}
        sources.update({given.key: given.source for given in table.values()})
        _check_workers(name, overrides[name], table)
    sections: dict[str, Any] = {}
    for section, cls in SECTIONS.items():
        start = len(section) + 1
        sections[section] = cls(
            **{key[start:]: value for key, value in chosen.items() if key.startswith(f"{section}.")}
        )
    return Settings(
        **sections,
        model=overrides,
        sources=sources,
        notes=tuple(mapped.notes),
        profile=profile,
        properties=mapped.entries,
        model_snapshot=mapped.model_snapshot,
        default_versions=mapped.models.default_versions,
    )


def _from_profile(name: str) -> Iterator[Given]:
    if name and name not in PROFILES:
        raise SettingError(
            f"profile: there is no profile {shown(name)}{_nearest(name, PROFILES)}; known: {', '.join(PROFILES)}"
        )
    for key, value in PROFILES.get(name, {}).items():
        yield Given(key, value, f"profile {name}")


def _converted(option: Option, given: Given) -> Any:
    try:
        return convert(option, given.value)
    except ValueError as error:
        raise SettingError(f"{given.source}: {given.key}: {error}") from None


def _check_workers(name: str, values: Mapping[str, Any], table: Mapping[str, Given]) -> None:
    if "min_workers" in values and values.get("max_workers", values["min_workers"]) < values["min_workers"]:
        raise SettingError(
            f"{table['max_workers'].source}: model.{name}.max_workers: expected at least min_workers"
            f" ({values['min_workers']}), got {values['max_workers']}"
        )


def _from_flags(flags: Mapping[str, Any], known: Mapping[str, Option]) -> Iterator[Given]:
    for key, value in flags.items():
        yield value if isinstance(value, Given) else Given(key, value, f"flag {known[key].flag}")


def _from_foreign_environ(profile: str, environ: Mapping[str, str]) -> Iterator[Given]:
    for name, key in ENVIRONMENT.get(profile, {}).items():
        if environ.get(name):
            yield Given(key, environ[name], f"env {name}")


def _from_environ(environ: Mapping[str, str], known: Mapping[str, Option]) -> Iterator[Given]:
    by_name = {item.env: item.key for item in known.values()}
    for name in sorted(environ):
        if name in by_name:
            yield Given(by_name[name], environ[name], f"env {name}")
        elif name.startswith(PREFIX) and not _is_foreign(name, environ[name]):
            raise SettingError(f"environment: unknown variable {name}{_nearest(name, by_name)}")


def _is_foreign(name: str, value: str) -> bool:
    if OTHER_ENV.fullmatch(name) or _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and _LINK_VALUE.match(value) is not None


def _from_toml(path: Path, known: Mapping[str, Option]) -> tuple[list[Given], dict[str, dict[str, Given]], str]:
    document, lines = read_toml(path)
    profile = document.pop("profile", "")
    if not isinstance(profile, str):
        raise SettingError(f"{path.name}:{lines.find('profile')}: profile: expected text, got {shown(profile)}")
    values: list[Given] = []
    models: dict[str, dict[str, Given]] = {}
    for section, table in document.items():
        place = f"{path.name}:{lines.find(section)}"
        if section not in SECTIONS and section != "model":
            # A plain key at the top of the file is a field whose table was forgotten.
            names = [*SECTIONS, "model"] if isinstance(table, dict) else list(known)
            raise SettingError(f"{place}: unknown key {section}{_nearest(section, names)}")
        if not isinstance(table, dict):
            raise SettingError(f"{place}: {section}: expected a table [{section}], got {shown(table)}")
        if section == "model":
            models = {name: _model_table(path, lines, name, fields) for name, fields in table.items()}
            continue
        for name, value in table.items():
            place = f"{path.name}:{lines.find(section, name)}"
            if f"{section}.{name}" not in known:
                raise SettingError(f"{place}: unknown key {section}.{name}{_nearest(f'{section}.{name}', known)}")
            values.append(Given(f"{section}.{name}", value, place))
    return values, models, profile


def _model_table(path: Path, lines: Lines, name: str, fields: Any) -> dict[str, Given]:
    if not isinstance(fields, dict):
        place = f"{path.name}:{lines.find('model', name)}"
        raise SettingError(f"{place}: model.{name}: expected a table [model.{name}], got {shown(fields)}")
    known = model_options()
    table: dict[str, Given] = {}
    for field, value in fields.items():
        place = f"{path.name}:{lines.find('model', name, field)}"
        if field not in known:
            hint = ' (a name with a dot is written [model."a.b"])' if isinstance(value, dict) else ""
            raise SettingError(f"{place}: unknown key model.{name}.{field}{_nearest(field, known)}{hint}")
        table[field] = Given(f"model.{name}.{field}", value, place)
    return table


def _nearest(key: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` for the nearest of ``known``: the same field elsewhere first, then the nearest spelling."""
    names = list(known)
    field = key.rpartition(".")[2]
    same = [name for name in names if name.rpartition(".")[2] == field]
    found = same or difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""
