"""``mlserve archive-workflow``: pack a graph of models and functions with torch-workflow-archiver's flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def archive_workflow(
    workflow_name: Annotated[str, typer.Option(help="Name of the workflow and of the archive.")],
    spec_file: Annotated[Path, typer.Option(help="YAML file with the models and the graph.")],
    handler: Annotated[Path | None, typer.Option(help="Python file with the functions of the graph.")] = None,
    extra_files: Annotated[str | None, typer.Option(help="Comma-separated files, directories and globs.")] = None,
    export_path: Annotated[
        Path | None, typer.Option(help="Directory for the archive; the current one if unset.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite an existing archive.")] = False,
) -> None:
    """Pack a workflow into NAME.war. The same inputs give the same bytes; SOURCE_DATE_EPOCH sets the date in it."""
    from mlserve.archive import pack_workflow

    path = pack_workflow(
        workflow_name=workflow_name,
        spec_file=spec_file,
        handler=handler,
        extra_files=extra_files,
        export_path=export_path,
        force=force,
    )
    typer.echo(str(path))
