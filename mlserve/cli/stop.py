"""``mlserve stop``: end a server by its pid file."""

from __future__ import annotations

import time
from typing import Annotated

import psutil
import typer

from mlserve.cli.exits import EXIT_FAILED, EXIT_NOT_RUNNING
from mlserve.cli.flags import with_settings
from mlserve.cli.pidfile import PidFile, ServerInfo, find_server
from mlserve.settings import Settings


@with_settings(only=("server.pid_file", "server.inference_port"))
def stop(
    settings: Settings,
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for it to end.", min=0, metavar="SECONDS", show_default=True)
    ] = 60.0,
    force: Annotated[bool, typer.Option("--force", help="Kill it if it has not ended by then.")] = False,
) -> None:
    """Stop a server: it takes no new requests, answers those under way, and ends.

    Exit codes: 0 it has ended, 1 it still runs after --timeout, 3 no server was running.
    """
    pid_file = find_server(settings)
    info = pid_file.read()
    if info is None:
        typer.echo(f"mlserve is not running (no server behind {pid_file.path})", err=True)
        raise typer.Exit(EXIT_NOT_RUNNING)
    raise typer.Exit(_end(info, pid_file, timeout, force))


def _end(info: ServerInfo, pid_file: PidFile, timeout: float, force: bool) -> int:
    process = info.process()
    if process is not None:
        process.terminate()
    if _ended(info, timeout):
        typer.echo(f"mlserve (pid {info.pid}) has stopped")
        return 0
    if not force or process is None:
        typer.echo(
            f"mlserve: error: the server (pid {info.pid}) still runs after {timeout:g} s; --force kills it", err=True
        )
        return EXIT_FAILED
    _kill(process)
    pid_file.path.unlink(missing_ok=True)
    typer.echo(f"mlserve (pid {info.pid}) was killed after {timeout:g} s")
    return 0


def _ended(info: ServerInfo, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while info.process() is not None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def _kill(process: psutil.Process) -> None:
    """Kill the server, and wait until the workers, which end by themselves when it is gone, are gone too."""
    workers = process.children(recursive=True)
    process.kill()
    _, left = psutil.wait_procs(workers, timeout=3)
    for worker in left:
        worker.kill()
