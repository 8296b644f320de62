"""What ``mlserve start`` does: run a server in the foreground, or put one in the background.

No typer here: the server would keep it, and a first worker would have to wait for its import.
"""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlserve.cli.sources import as_arguments, with_restored_models
from mlserve.settings import Settings

if TYPE_CHECKING:
    from mlserve.cli.console import LogProgress
    from mlserve.cli.pidfile import PidFile
    from mlserve.cli.quick import Start
    from mlserve.cli.sources import CommandLine
    from mlserve.engine.local.bare import Bare
    from mlserve.engine.local.early import Begun
    from mlserve.errors import ServeError

log = logging.getLogger("mlserve.start")


def carry_out(told: Start, settings: Settings, bare: Bare | None = None) -> int:
    """Start the server that ``told`` and the ``settings`` read for it describe; returns the exit code.

    In the foreground that is when it has ended, else when it is ready. ``bare`` may become the first worker's process;
    the caller is to end it.
    """
    if told.detach:
        return _start_detached(settings, told.line, told.log_file)
    return _serve(with_restored_models(settings, told.line), told.events_fd, str(told.log_file or ""), bare)


def _serve(settings: Settings, events_fd: int, log_file: str, bare: Bare | None) -> int:
    begun = begin_first_worker(settings, bare)
    if begun is None and bare is not None:
        bare.end()
    try:
        return _serve_with(begun, settings, events_fd, log_file)
    finally:
        if begun is not None:
            begun.end()


def _serve_with(begun: Begun | None, settings: Settings, events_fd: int, log_file: str) -> int:
    from mlserve.cli.console import make_progress
    from mlserve.cli.detach import PipeProgress
    from mlserve.cli.pidfile import PidFile, default_path
    from mlserve.log import setup_logging

    setup_logging(settings.log)
    for note in settings.notes:
        log.warning("%s", note)
    pid_file = PidFile(default_path(settings))
    key_file = str(Path(settings.auth.key_file).absolute()) if settings.auth.tokens else ""
    pid_file.claim(inference_port=settings.server.inference_port, log_file=log_file, key_file=key_file)
    try:
        gc.disable()  # 5 % of the time of these imports, which leave nearly no garbage
        from mlserve import server

        gc.enable()
        progress = PipeProgress(events_fd) if events_fd >= 0 else make_progress(settings.log.format)
        try:
            code = server.run(settings, Recorded(progress, pid_file), begun)
        finally:
            progress.close()
    finally:
        pid_file.remove()
    if code == server.MODEL_FAILED:
        for name, message in progress.failures.items():
            print(f"mlserve: error: model {name} did not load: {message}", file=sys.stderr)
        print("mlserve: --keep-going starts without the models that do not load", file=sys.stderr)
    return code


def begin_first_worker(settings: Settings, bare: Bare | None = None) -> Begun | None:
    """Start the process of the first worker, so that it imports what it needs while this one imports the server.

    ``bare`` is one that runs already. None where there is none to start. The caller is to :meth:`end` it, which leaves
    it alone where a server has it.
    """
    if not (settings.models.load and settings.workers.spare and sys.platform == "linux"):
        return None
    if settings.model_snapshot is not None:  # which is loaded instead
        return None
    from mlserve.archive.peeking import imports_torch
    from mlserve.engine.local.early import begin

    named = settings.models.load[0]
    url = named.partition("=")[2].strip() or named.strip()
    if url.lower() == "all":
        return None
    path = next((path for path in (Path(settings.models.store or ".", url), Path(url)) if path.exists()), Path(url))
    # numpy first: its extension modules would wait for torch's library, which is linked beside other imports
    return begin(settings, url, ("numpy", "torch") if imports_torch(path) else (), bare)


class Recorded:
    """Progress that also keeps the pid file up to date: where the server listens and whether it is ready."""

    def __init__(self, progress: LogProgress, pid_file: PidFile) -> None:
        self._progress = progress
        self._pid_file = pid_file
        self.model_loading = progress.model_loading
        self.worker_ready = progress.worker_ready
        self.model_ready = progress.model_ready
        self.stopped = progress.stopped

    def model_failed(self, name: str, error: ServeError) -> None:
        """A model will not serve."""
        self._progress.model_failed(name, error)

    def listening(self, what: str, address: str) -> None:
        """An API is bound."""
        self._pid_file.add_address(what, address)
        self._progress.listening(what, address)

    def ready(self, seconds: float) -> None:
        """The server serves."""
        self._pid_file.update(state="ready")
        self._progress.ready(seconds)

    def stopping(self, reason: str) -> None:
        """The server ends."""
        self._pid_file.update(state="stopping")
        self._progress.stopping(reason)


def _start_detached(settings: Settings, given: CommandLine, log_file: Path | None) -> int:
    from mlserve.cli.console import listed, make_progress
    from mlserve.cli.detach import start_in_background
    from mlserve.cli.ending import obey_signals
    from mlserve.cli.pidfile import default_path

    obey_signals()
    log_file = (log_file or default_path(settings, "log")).absolute()
    # Logging is not set up here, so without a terminal nothing is shown until the end: the lines are in the log file.
    progress = make_progress(settings.log.format)
    try:
        background = start_in_background(as_arguments(given), log_file, progress)
    finally:
        progress.close()
    if background.exit_code is None:
        print(f"mlserve runs in the background (pid {background.pid}): {listed(progress.addresses)}")
        print(f"log: {log_file}")
        return 0
    print(background.failure, file=sys.stderr)
    print(f"mlserve: error: the server ended with code {background.exit_code}; its log: {log_file}", file=sys.stderr)
    return background.exit_code if background.exit_code > 0 else 1
