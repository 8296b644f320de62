"""``mlserve compat``: what a user of TorchServe needs to keep scripts as they are."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="TorchServe's commands and Python modules, for scripts that use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COMMANDS = {
    "torchserve": "mlserve.cli.shims.torchserve",
    "torch-model-archiver": "mlserve.cli.shims.model_archiver",
    "torch-workflow-archiver": "mlserve.cli.shims.workflow_archiver",
}
MODULES = {
    "ts": "mlserve.compat.ts",
    "model_archiver": "mlserve.compat.model_archiver",
    "workflow_archiver": "mlserve.compat.workflow_archiver",
}
_MARK = "written by mlserve compat install-shims"
_COMMAND = """\
#!{python}
# {mark}
import sys

from {module} import main

sys.exit(main())
"""
_MODULE = """\
# {mark}
from mlserve.compat.alias import stand_in

stand_in(__name__, "{target}")
"""


@app.callback()
def _group() -> None:
    """A group of its own, so that the command keeps its name."""


@app.command("install-shims")
def install_shims(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; made if it is not there.")],
    force: Annotated[bool, typer.Option("--force", help="Replace files that this command did not write.")] = False,
) -> None:
    """Write torchserve, torch-model-archiver and torch-workflow-archiver into DIR, and the modules `ts`,
    `model_archiver` and `workflow_archiver` for scripts that import them.

    They take effect for whoever puts DIR first on PATH, and on PYTHONPATH for the modules.
    """
    files = {
        directory / name: _COMMAND.format(python=sys.executable, mark=_MARK, module=module)
        for name, module in COMMANDS.items()
    }
    files.update(
        {
            directory / name / "__init__.py": _MODULE.format(mark=_MARK, target=target)
            for name, target in MODULES.items()
        }
    )
    foreign = [path for path in files if path.exists() and _MARK not in path.read_text(errors="replace")]
    if foreign and not force:
        typer.echo(f"mlserve: error: {foreign[0]} is there and not ours: use --force to replace it", err=True)
        raise typer.Exit(1)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text)
        fresh.chmod(0o755 if path.parent == directory else 0o644)
        os.replace(fresh, path)
    shown = directory.absolute()
    typer.echo(f"wrote {', '.join(COMMANDS)} and the modules {', '.join(MODULES)} to {shown}")
    typer.echo(f"use them with: export PATH={shown}:$PATH PYTHONPATH={shown}:$PYTHONPATH")
