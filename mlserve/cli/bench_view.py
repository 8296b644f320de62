"""The table that grows while ``mlserve bench`` measures, drawn by a process of its own.

Drawing a table takes rich 3 to 8 ms. In the process that measures every one of them would be a stall of that length,
and four in a second would be all there is to see at p99; so rows go as lines of JSON to this module run as a program:
``python -m mlserve.cli.bench_view``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

EVERY = 0.25  # seconds


class View:
    """The table of finished rows and the row under way. Without a terminal on standard error it shows nothing."""

    def __init__(self, wanted: bool) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._last = 0.0
        if wanted and sys.stderr.isatty():
            command = [sys.executable, "-m", "mlserve.cli.bench_view"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)

    def due(self) -> bool:
        """Whether it is time to show again; asking makes it so."""
        now = time.monotonic()
        if self._process is None or now - self._last < EVERY:
            return False
        self._last = now
        return True

    def show(self, headers: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
        """Draw these rows soon; a viewer that is behind misses some."""
        if self._process is not None and self._process.stdin is not None:
            line = json.dumps({"headers": list(headers), "rows": [list(row) for row in rows], "title": title})
            with contextlib.suppress(OSError):
                os.write(self._process.stdin.fileno(), line.encode() + b"\n")

    def close(self) -> None:
        """Take the table off the terminal."""
        if self._process is not None:
            try:
                self._process.communicate(timeout=5)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
            self._process = None


def main() -> None:
    """Draw what standard input says until it ends. Signals are for the process that measures, which then closes it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        for line in sys.stdin:
            with contextlib.suppress(ValueError):  # a line that was cut because the pipe was full
                live.update(_table(json.loads(line)), refresh=True)


def _table(state: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(state["title"]), title_justify="left", header_style="bold", caption="Ctrl-C ends it early")
    for header in state["headers"]:
        table.add_column(header, justify="right")
    for number, row in enumerate(state["rows"]):
        running = number == len(state["rows"]) - 1
        table.add_row(*(Text(cell) for cell in row), style="cyan" if running else None)
    return table


if __name__ == "__main__":
    main()
