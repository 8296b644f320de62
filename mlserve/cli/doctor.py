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
    from mlserve.cli.checkup import Finding

_STYLES = {"ok": "green", "changed": "yellow", "missing": "red", "failed": "red"}


def doctor(
    torchserve: Annotated[Path, typer.Option("--torchserve", metavar="CONFIG", help="TorchServe's config.properties.")],
    model_store: Annotated[
        Path | None, typer.Option("--model-store", help="Its model store, if the file does not name one.")
    ] = None,
    load: Annotated[bool, typer.Option(help="Load each archive once in a worker.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what a TorchServe installation needs here: which settings are honoured and which are not, which archives
    load, which handlers import something that is missing.

    Exit codes: 0 all of it runs, 1 something does not.
    """
    from mlserve.cli.checkup import archive_findings, settings_findings
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
        _print(sections)
        typer.echo(f"\n{len(DIFFERENCES)} more differences, of the server and not of your settings:")
        for difference in DIFFERENCES.values():
            typer.echo(f"  TorchServe: {difference.theirs}. Here: {difference.ours}.")
    bad = [item for items in sections.values() for item in items if item.level in ("missing", "failed")]
    if bad:
        typer.echo(f"\n{len(bad)} to solve before the switch", err=True)
        raise typer.Exit(1)


def _print(sections: dict[str, list[Finding]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for name, items in sections.items():
        console.print(Text(f"\n{name}", style="bold"))
        width = max((len(item.about) for item in items), default=0)
        for item in items:
            line = Text(f"  {item.level:<8}", style=_STYLES[item.level])
            line.append(f"{item.about:<{min(width, 48)}}  ", style="default")
            line.append(item.text, style="default")
            console.print(line)
            for detail in item.detail.strip().splitlines()[-12:]:
                console.print(Text(f"            {detail}", style="dim"))
        if not items:
            console.print("  nothing found")
    sys.stdout.flush()
