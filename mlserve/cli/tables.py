"""Tables for people: drawn by rich on a terminal, plain aligned columns into a pipe or a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print one row per element of ``rows``; each has as many cells as there are headers."""
    if sys.stdout.isatty():
        _rich(headers, rows, title)
        return
    if title:
        typer.echo(title)
    widths = [max(len(row[column]) for row in (headers, *rows)) for column in range(len(headers))]
    for row in (headers, *rows):
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _rich(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a path or a log line may look like rich's markup
    Console().print(table)
