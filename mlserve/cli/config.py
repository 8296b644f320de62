"""``mlserve config``: the settings in effect with their sources, and the reference of all settings."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from mlserve.cli.flags import with_settings
from mlserve.settings import Settings, all_options
from mlserve.settings.reference import reference
from mlserve.settings.values import written

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
    if sys.stdout.isatty():
        _table(shown)
    else:
        widths = [max(len(row[column]) for row in shown) for column in (0, 1)]
        for key, value, source in shown:
            typer.echo(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {source}")
    for note in settings.notes:
        typer.echo(f"note: {note}", err=True)


@app.command("reference")
def show_reference() -> None:
    """Print the reference of all settings, in Markdown."""
    typer.echo(reference(), nl=False)


def _rows(settings: Settings) -> list[tuple[str, Any, str]]:
    rows = [
        (item.key, getattr(getattr(settings, item.section), item.name), settings.sources[item.key])
        for item in all_options()
    ]
    for name, table in settings.model.items():
        for field, value in table.items():
            key = f"model.{name}.{field}"
            rows.append((key, value, settings.sources[key]))
    return rows


def _table(rows: list[tuple[str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("Setting", "Value", "Source", header_style="bold")
    for key, value, source in rows:
        table.add_row(key, Text(value), Text(source, style="dim" if source == "default" else "cyan"))
    Console().print(table)
