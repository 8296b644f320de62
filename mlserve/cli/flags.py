"""Command-line flags made from the settings tree, so that a flag is declared once, with its field.

A verb that needs settings is written as ``def verb(settings: Settings, ...)`` and decorated with
:func:`with_settings`, which gives it ``--config`` and a flag per setting and hands it the loaded tree.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mlserve.errors import SettingError
from mlserve.settings import Option, Settings, all_options, find_config_file, load_settings
from mlserve.settings.values import written

_METAVARS = {"gpu_ids": "IDS", "int": "N", "float": "NUMBER", "size": "SIZE", "texts": "MODEL"}


def with_settings(only: Collection[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Give a command the settings' flags (those of the keys ``only``, or all) and call it with ``settings=``.

    A command that has a parameter ``given`` is passed what came from the command line, as ``(config, flags)``.
    A positional parameter ``more_models`` of the command is added to ``models.load``.
    """
    chosen = [item for item in all_options() if item.flag and (not only or item.key in only)]

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters
        passed = [
            item for name, item in own.items() if name not in ("settings", "given")
        ]  # those the command line fills

        def command(**values: Any) -> None:
            config = values.pop("config")
            flags = {item.key: values.pop(_name(item)) for item in chosen}
            flags = {key: value for key, value in flags.items() if value is not None and value != []}
            if values.get("more_models"):
                flags["models.load"] = [*flags.get("models.load", []), *values["more_models"]]
            if "models.load" in flags:  # each value may itself be a comma list, as in config.properties
                flags["models.load"] = ",".join(flags["models.load"])
            if "given" in own:
                values["given"] = (config, flags)
            function(settings=read_settings(config, flags), **values)

        parameters = [*(item for item in passed), _config_parameter(), *(_parameter(item) for item in chosen)]
        command.__name__ = function.__name__
        command.__doc__ = function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {item.name: item.annotation for item in parameters}
        return command

    return decorate


def read_settings(config: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Load the settings for this process: its environment, its working directory, and what the command line gave.

    Raises :class:`SettingError`.
    """
    path = find_config_file(config, os.environ, Path.cwd())
    if path is None or path.suffix != ".properties":
        return load_settings(config_file=path, flags=flags, environ=os.environ)
    from mlserve.settings.properties import PropertiesError, read_properties

    try:
        entries = read_properties(path, os.environ)
    except PropertiesError as error:
        raise SettingError(str(error)) from None
    return load_settings(config_file=path, flags=flags, environ=os.environ, properties=entries)


def as_arguments(config: Path | None, flags: Mapping[str, Any]) -> list[str]:
    """What was given on the command line, as arguments for another process."""
    known = {item.key: item for item in all_options()}
    arguments = [f"--config={config}"] if config is not None else []
    for key, value in flags.items():
        flag = known[key].flag
        if isinstance(value, bool):
            arguments.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            arguments.append(f"{flag}={value}")
    return arguments


def _name(item: Option) -> str:
    return item.key.replace(".", "_")


def _parameter(item: Option) -> inspect.Parameter:
    declared = item.flag
    kind: Any = str | None
    metavar: str | None = _METAVARS.get(item.kind, "TEXT")
    if item.kind == "bool":
        declared, metavar = f"{item.flag}/{item.flag.replace('--', '--no-', 1)}", None
        kind = bool | None
    elif item.kind == "texts":
        kind = list[str] | None
    elif item.choices:
        metavar = "|".join(item.choices)
    shown = f" [default: {written(item.default)}]" if item.default not in ("", (), False) else ""
    info = typer.Option(declared, help=item.help.replace("`", "") + shown, metavar=metavar, show_default=False)
    return inspect.Parameter(
        _name(item), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, info]
    )


def _config_parameter() -> inspect.Parameter:
    info = typer.Option(
        "--config",
        "--ts-config",
        help="Settings file: TOML, or a TorchServe config.properties. [default: $MLSERVE_CONFIG, ./mlserve.toml]",
        metavar="FILE",
        show_default=False,
    )
    return inspect.Parameter(
        "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Path | None, info]
    )
