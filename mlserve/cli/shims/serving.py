"""The server process behind ``torchserve``: its settings, its log on standard output, its ready line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlserve.errors import ServeError, SettingError
from mlserve.protocols.torchserve_texts import TORCHSERVE_VERSION

if TYPE_CHECKING:
    from mlserve.settings import Settings

log = logging.getLogger("org.pytorch.serve.ModelServer")

READY = "Model server started."  # what launchers wait for
_NAMES = {
    "inference": "Inference API",
    "management": "Management API",
    "metrics": "Metrics API",
    "grpc_inference": "Inference gRPC API",
    "grpc_management": "Management gRPC API",
}


class Announcer:
    """See ``server.Progress``: what TorchServe writes while it starts and stops."""

    def model_loading(self, name: str) -> None:
        """A model named at start is loading."""

    def worker_ready(self, model: str, ready: int, wanted: int) -> None:
        """One more worker has loaded."""

    def model_ready(self, name: str, seconds: float) -> None:
        """All workers of the model have loaded."""
        log.info("Model %s loaded.", name)

    def model_failed(self, name: str, error: ServeError) -> None:
        """The model will not serve; the server goes on."""
        log.warning("Failed to load model: %s: %s", name, error.message)

    def listening(self, what: str, address: str) -> None:
        """An API is bound to ``address``."""
        log.info("%s bind to: %s", _NAMES.get(what, what), address)

    def ready(self, seconds: float) -> None:
        """The server serves."""
        sys.stdout.write(f"{READY}\n")  # in one write, else a line of the log may come before its end
        sys.stdout.flush()

    def stopping(self, reason: str) -> None:
        """No new requests from now on."""
        log.info("Torchserve stopping: %s", reason)

    def stopped(self) -> None:
        """Every worker has ended."""
        log.info("Torchserve stopped.")


def serve(options: argparse.Namespace) -> int:
    """Run the server that ``options`` of the command line describe; returns its exit code."""
    from mlserve.cli.sources import read_torchserve_settings
    from mlserve.log import setup_logging

    try:
        settings = read_torchserve_settings(
            ts_config=Path(options.ts_config) if options.ts_config else None,
            model_store=options.model_store or "",
            workflow_store=options.workflow_store or "",
            models=options.models or (),
            ncs=options.no_config_snapshots,
            disable_token_auth=options.disable_token_auth,
            enable_model_api=options.enable_model_api,
            environ=os.environ,
            directory=Path.cwd(),
        )
        setup_logging(settings.log)
        log.info("Torchserve version: %s (mlserve)", TORCHSERVE_VERSION)
        for note in settings.notes:
            log.warning("%s", note)
        for flag in ("log_config", "cpp_log_config", "plugins_path"):
            if getattr(options, flag):
                log.warning("--%s is accepted and ignored: it configures the Java server", flag.replace("_", "-"))
        return _run(settings)
    except SettingError as error:
        print(f"Invalid configuration: {error}", file=sys.stderr, flush=True)
        return 1
    except ServeError as error:
        print(f"Failed to start: {error.message}", file=sys.stderr, flush=True)
        return 1


def _run(settings: Settings) -> int:
    from mlserve.cli.serve import begin_first_worker

    begun = begin_first_worker(settings)
    try:
        from mlserve import server

        return server.run(settings, Announcer(), begun)
    finally:
        if begun is not None:
            begun.end()
