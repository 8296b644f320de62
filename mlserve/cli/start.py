"""``mlserve start``: its command line. What it does is in :mod:`mlserve.cli.serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlserve.cli.flags import CommandLine, with_settings
from mlserve.settings import Settings


@with_settings()
def start(
    settings: Settings,
    given: CommandLine,
    more_models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="More models to load, as with --models; `--models a.mar b.mar` works because of this.",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background; return when it is ready.")
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            "--log-file",
            help="With --detach: where its log goes. [default: beside the pid file's default]",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    events_fd: Annotated[int, typer.Option("--events-fd", hidden=True)] = -1,
) -> None:
    """Start a server and run it until SIGTERM or Ctrl-C; with --detach, in the background.

    --models takes `name=file.mar`, `file.mar`, an unpacked directory, a model file or folder such as `model.onnx`, a
    handler file, or `all` for every model of the model store; it may be repeated, hold a comma list, or be followed by
    several values.
    """
    from mlserve.cli.quick import Start
    from mlserve.cli.serve import carry_out

    if log_file is not None and not detach and events_fd < 0:
        raise typer.BadParameter("it goes with --detach; in the foreground, redirect standard error")
    raise typer.Exit(carry_out(Start(given, detach, log_file, events_fd), settings))
