"""``mlserve config``: the settings in effect with their sources, and the reference of all settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from mlserve.cli.flags import with_settings
from mlserve.settings import PROFILES, Settings, all_options
from mlserve.settings.reference import reference
from mlserve.settings.values import written

COMPARED = "torchserve"  # the profile that `config diff` compares with

app = typer.Typer(
    help="Show the settings in effect and where each comes from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("show")
@with_settings()
def show(
    settings: Settings,
    more_models: Annotated[list[str] | None, typer.Argument(metavar="MODEL", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print each setting's effective value and where it comes from.

    Takes the flags of `mlserve start`, so that it shows what `start` with the same flags would use.
    """
    rows = _rows(settings)
    if as_json:
        document = {key: {"value": value, "source": source} for key, value, source in rows}
        typer.echo(json.dumps({"settings": document, "notes": settings.notes}, indent=2))
        return
    shown = [(key, written(value), source) for key, value, source in rows]
    _print_table(("setting", "value", "source"), shown)
    for note in settings.notes:
        typer.echo(f"note: {note}", err=True)


@app.command("diff")
@with_settings()
def diff(
    settings: Settings,
    more_models: Annotated[list[str] | None, typer.Argument(metavar="MODEL", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the settings in effect with mlserve's defaults and with TorchServe's.

    Lists every setting where the three are not the same. Takes the flags of `mlserve start`; with `--ts-config FILE` it
    shows what a TorchServe configuration means here, with `--profile torchserve` the profile itself.
    """
    profile = PROFILES[COMPARED]
    rows = []
    for item in all_options():
        value = item.shown(getattr(getattr(settings, item.section), item.name))
        columns = (item.default, profile.get(item.key, item.default), value)
        if any(column != value for column in columns):
            rows.append((item.key, *columns, settings.sources[item.key]))
    for key, value, source in _model_rows(settings):
        rows.append((key, None, None, value, source))
    if as_json:
        names = ("setting", "default", COMPARED, "value", "source")
        typer.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
        return
    head = ("setting", "mlserve", COMPARED, "in effect", "source")
    shown: list[tuple[str, ...]] = []
    for key, *values, source in rows:
        own = key.startswith("model.")  # of one model: there is nothing to compare it with
        shown.append((key, *("" if own and value is None else written(value) for value in values), source))
    if not sys.stdout.isatty():
        shown.insert(0, head)
    _print_table(head, shown)


@app.command("reference")
def show_reference() -> None:
    """Print the reference of all settings, in Markdown."""
    typer.echo(reference(), nl=False)


def _rows(settings: Settings) -> list[tuple[str, Any, str]]:
    rows = [
        (item.key, item.shown(getattr(getattr(settings, item.section), item.name)), settings.sources[item.key])
        for item in all_options()
    ]
    return rows + _model_rows(settings)


def _model_rows(settings: Settings) -> list[tuple[str, Any, str]]:
    return [
        (key, value, settings.sources[key])
        for name, table in settings.model.items()
        for key, value in ((f"model.{name}.{field}", value) for field, value in table.items())
    ]


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere plain aligned lines, one for each row, for the reader's own tools."""
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), collapse_padding=True)
        table.add_column(head[0], no_wrap=True, min_width=max(len(row[0]) for row in rows) if rows else 0)
        for title in head[1:]:
            table.add_column(title, overflow="fold")
        for *cells, source in rows:
            table.add_row(*map(Text, cells), Text(source, style="dim" if source == "default" else "cyan"))
        Console().print(table)
        return
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(len(head) - 1)]
    for row in rows:
        typer.echo("  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]))
