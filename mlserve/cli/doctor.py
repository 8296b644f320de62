"""``mlserve doctor``: read a user's TorchServe installation and say line by line what becomes of it here."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Collection

    from mlserve.cli.checkup import Finding
    from mlserve.compat.differences import Difference

_STYLES = {"ok": "green", "changed": "yellow", "missing": "red", "failed": "red"}
_TO_SOLVE = ("missing", "failed")


def doctor(
    torchserve: Annotated[Path, typer.Option("--torchserve", metavar="CONFIG", help="TorchServe's config.properties.")],
    model_store: Annotated[
        Path | None, typer.Option("--model-store", help="Its model store, if the file does not name one.")
    ] = None,
    load: Annotated[bool, typer.Option(help="Load each archive once in a worker.")] = True,
    differences: Annotated[bool, typer.Option(help="Print how the servers differ, whatever the settings.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what a TorchServe installation needs here: which settings are honoured and which are not, which archives
    load, which handlers import something that is missing.

    Exit codes: 0 all of it runs, 1 something does not.
    """
    from mlserve.cli.checkup import settings_findings
    from mlserve.cli.checkup_archives import archive_findings
    from mlserve.cli.sources import read_torchserve_settings
    from mlserve.compat.differences import DIFFERENCES
    from mlserve.settings.properties import read_properties

    store = str(model_store or "")
    settings = read_torchserve_settings(
        ts_config=torchserve, model_store=store, ncs=True, environ=os.environ, directory=Path.cwd()
    )
    entries = read_properties(torchserve, os.environ)
    sections: dict[str, list[Finding]] = {"Settings": list(settings_findings(torchserve, entries, settings))}
    if load and settings.models.store:
        work_dir = Path(tempfile.mkdtemp(prefix="mlserve-doctor-"))
        try:
            sections["Archives"] = archive_findings(settings, work_dir)
        finally:
            shutil.rmtree(work_dir, ignore_errors=True)
    if as_json:
        typer.echo(json.dumps({name: [asdict(item) for item in items] for name, items in sections.items()}, indent=2))
    else:
        if differences:
            _print_differences(DIFFERENCES.values())
        _print(sections, f"{torchserve.name}:")
    bad = {item.about.split()[0] for items in sections.values() for item in items if item.level in _TO_SOLVE}
    if bad:
        typer.echo(f"\nTo solve before the switch: {', '.join(sorted(bad))}", err=True)
        raise typer.Exit(1)


def _print(sections: dict[str, list[Finding]], file: str) -> None:
    """On a terminal each text is kept in its column, without the file's name; elsewhere a finding is one line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    for name, items in sections.items():
        console.print(Text(f"\n{name}", style="bold"))
        width = max((len(item.about) for item in items), default=0)
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=9, no_wrap=True)
        table.add_column(max_width=max(20, console.width // 3), overflow="fold")
        table.add_column(overflow="fold", ratio=1)
        for item in items:
            level = Text(f"  {item.level}", style=_STYLES[item.level])
            details = [Text(line, style="dim") for line in item.detail.strip().splitlines()[-12:]]
            if sys.stdout.isatty():
                table.add_row(level, Text(item.about.removeprefix(file)), Text("\n").join([Text(item.text), *details]))
                continue
            console.print(Text(f"{level.plain:<9} {item.about:<{min(width, 48)}}  {item.text}"))
            for line in details:
                console.print(Text(f"            {line.plain}"))
        if not items:
            console.print("  nothing found")
        elif sys.stdout.isatty():
            console.print(table)
    sys.stdout.flush()


def _print_differences(differences: Collection[Difference]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    console.print(Text(f"\n{len(differences)} differences of the servers, whatever your settings", style="bold"))
    for one in differences:
        setting = f" (setting: {one.setting})" if one.setting else ""
        text = Text(f"TorchServe: {one.theirs}. Here: {one.ours}{setting}.")
        text.append(f" Why: {one.why}.", style="dim")
        console.print(Padding(text, (0, 0, 0, 2)) if sys.stdout.isatty() else Text("  ").append_text(text))
    sys.stdout.flush()
