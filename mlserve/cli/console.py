"""What the person at the terminal sees while a server starts: a live view, or plain log lines where there is none."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from mlserve.errors import ServeError

log = logging.getLogger("mlserve.start")


@dataclass
class ModelRow:
    """A model of the start-up view."""

    ready: int = 0
    wanted: int = 0
    seconds: float | None = None  # set once it serves
    error: str = ""


class LogProgress:
    """Start-up as log lines. It is also the model of the view: what was loaded, what failed, what listens where."""

    def __init__(self) -> None:
        self.models: dict[str, ModelRow] = {}
        self.addresses: dict[str, str] = {}
        self.failures: dict[str, str] = {}

    def model_loading(self, name: str) -> None:
        """A model is being unpacked and its workers started."""
        self.models.setdefault(name, ModelRow())
        log.info("loading model %s", name)

    def worker_ready(self, model: str, ready: int, wanted: int) -> None:
        """One more worker has loaded."""
        row = self.models.setdefault(model, ModelRow())
        row.ready, row.wanted = ready, wanted
        log.info("model %s: %d of %d workers ready", model, ready, wanted)

    def model_ready(self, name: str, seconds: float) -> None:
        """All workers of the model have loaded."""
        self._served(name, seconds)
        log.info("model %s is ready after %.1f s", name, seconds)

    def model_failed(self, name: str, error: ServeError) -> None:
        """The model will not serve. Its traceback is in the log already."""
        self.models.setdefault(name, ModelRow()).error = error.message
        self.failures[name] = error.message

    def listening(self, what: str, address: str) -> None:
        """An API is bound to ``address``."""
        self.addresses[what] = address
        log.info("%s API at %s", what, address)

    def ready(self, seconds: float) -> None:
        """Every required model has a ready worker."""
        log.info("mlserve is ready after %.1f s: %s", seconds, listed(self.addresses))

    def stopping(self, reason: str) -> None:
        """No new requests from now on."""
        log.info("stopping: %s", reason)

    def stopped(self) -> None:
        """Every worker has ended."""
        log.info("stopped")

    def close(self) -> None:
        """Give the terminal back, whatever happened."""

    def _served(self, name: str, seconds: float) -> None:
        row = self.models.setdefault(name, ModelRow())
        row.seconds, row.ready = seconds, row.wanted


class LiveProgress(LogProgress):
    """Start-up as a table that is redrawn in place. When the server is ready the table stays, and log lines follow."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live

        self._outcome = ""
        self._live: Live | None = Live(
            get_renderable=self.view, console=Console(stderr=True), refresh_per_second=8, redirect_stdout=False
        )
        self._live.start()

    def model_loading(self, name: str) -> None:
        """As in the base class, without the log line."""
        self.models.setdefault(name, ModelRow())

    def worker_ready(self, model: str, ready: int, wanted: int) -> None:
        """As in the base class, without the log line."""
        row = self.models.setdefault(model, ModelRow())
        row.ready, row.wanted = ready, wanted

    def model_ready(self, name: str, seconds: float) -> None:
        """As in the base class, without the log line."""
        self._served(name, seconds)

    def listening(self, what: str, address: str) -> None:
        """As in the base class, without the log line."""
        self.addresses[what] = address

    def ready(self, seconds: float) -> None:
        """Draw the table a last time and leave the terminal to the log."""
        self._outcome = f"mlserve is ready after {seconds:.1f} s"
        self.close()

    def stopping(self, reason: str) -> None:
        """As in the base class; a start that is broken off ends the view."""
        self.close()
        super().stopping(reason)

    def close(self) -> None:
        """Stop redrawing; the last state stays on the screen."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def view(self) -> RenderableType:
        """The table as it is now."""
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, row in self.models.items():
            workers = f"{row.ready}/{row.wanted} workers" if row.wanted else ""
            state: RenderableType = Spinner("dots", "loading") if self._live else Text("loading")
            if row.error:
                state = Text(f"failed: {row.error.splitlines()[0]}", style="red")
            elif row.seconds is not None:
                state = Text(f"ready after {row.seconds:.1f} s", style="green")
            table.add_row(Text(name, style="bold"), state, workers)
        for what, address in self.addresses.items():
            table.add_row(Text(f"{what} API", style="dim"), Text(address, style="cyan"), "")
        return Group(table, Text(self._outcome, style="bold green")) if self._outcome else table


def make_progress(log_format: str) -> LogProgress:
    """The live view if standard error is a terminal and log lines are for people, else log lines."""
    return LiveProgress() if sys.stderr.isatty() and log_format == "text" else LogProgress()


def listed(addresses: dict[str, str]) -> str:
    """``inference http://127.0.0.1:8080, management http://...``."""
    return ", ".join(f"{what} {address}" for what, address in addresses.items())
