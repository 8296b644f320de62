"""Command-line flags made from the settings tree, so that a flag is declared once, with its field.

A verb that needs settings is written as ``def verb(settings: Settings, ...)`` and decorated with
:func:`with_settings`, which gives it ``--config`` and a flag per setting and hands it the loaded tree. Which file is
read, and how, is in :mod:`mlserve.cli.sources`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from mlserve.cli.declared import declared
from mlserve.cli.sources import CommandLine, as_arguments, make_command_line, read_settings, read_torchserve_settings
from mlserve.settings import PROFILES, Option, all_options
from mlserve.settings.values import written

__all__ = ["CommandLine", "as_arguments", "read_settings", "read_torchserve_settings", "with_settings"]

_METAVARS = {"gpu_ids": "IDS", "int": "N", "float": "NUMBER", "size": "SIZE", "texts": "MODEL"}


def with_settings(only: Collection[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Give a command the settings' flags (those of the keys ``only``, or all) and call it with ``settings=``.

    A command that has a parameter ``given`` is passed what came from the command line, a :class:`CommandLine`. With all
    flags there is ``--profile`` as well.
    A positional parameter ``more_models`` of the command is added to ``models.load``.
    """
    chosen = [item for item in all_options() if item.flag and (not only or item.key in only)]

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters
        passed = [
            item for name, item in own.items() if name not in ("settings", "given")
        ]  # those the command line fills

        def command(**values: Any) -> None:
            config, ts_config, profile = values.pop("config"), values.pop("ts_config"), values.pop("profile", "")
            flags = {item.key: values.pop(_name(item)) for item in chosen}
            flags = {key: value for key, value in flags.items() if value is not None and value != []}
            line = make_command_line(flags, values.get("more_models") or ())
            line = line._replace(config=config, profile=profile, ts_config=ts_config)
            if "given" in own:
                values["given"] = line
            function(settings=read_settings(line), **values)

        files = [_CONFIG, _TS_CONFIG, *([] if only else [_PROFILE])]
        parameters = [*passed, *files, *(_parameter(item) for item in chosen)]
        return declared(command, function, parameters)

    return decorate


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


def _keyword(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_CONFIG = _keyword(
    "config",
    Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Settings file: TOML, or a TorchServe *.properties. [default: $MLSERVE_CONFIG, ./mlserve.toml]",
            metavar="FILE",
            show_default=False,
        ),
    ],
)
_TS_CONFIG = _keyword(
    "ts_config",
    Annotated[
        Path | None,
        typer.Option(
            "--ts-config",
            help="Settings file: a TorchServe config.properties or snapshot; $TS_CONFIG_FILE comes before it.",
            metavar="FILE",
            show_default=False,
        ),
    ],
)
_PROFILE = _keyword(
    "profile",
    Annotated[
        str,
        typer.Option(
            "--profile",
            help="Defaults to start from instead of mlserve's own; --ts-config means torchserve.",
            metavar="|".join(PROFILES),
            show_default=False,
        ),
    ],
    "",
)
