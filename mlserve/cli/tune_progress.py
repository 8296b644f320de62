"""The time that ``mlserve tune`` may take, and what it shows meanwhile: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType

import typer


class Budget:
    """So many seconds from now on. Use it as a context manager: leaving takes the bar off the terminal."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.short = False  # something was left out because the time was over
        self._begun = time.monotonic()
        self._overhead = 0.0  # the longest that verifying took beside the loads: the start of a server
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (BarColumn(), TimeElapsedColumn(), TextColumn("of {task.total:.0f} s  {task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=seconds)
            self._bar.start()

    def __enter__(self) -> Budget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            bar, self._bar = self._bar, None
            bar.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

    def at(self, share: float) -> float:
        """The moment at which this share of the time is over, on the monotonic clock."""
        return self._begun + share * self.seconds

    def allows(self, seconds: float) -> bool:
        """Whether another load of so many seconds, with a server to start for it, still fits."""
        fits = self.elapsed + self._overhead + seconds <= self.seconds
        self.short = self.short or not fits
        return fits

    @contextlib.contextmanager
    def lap(self) -> Iterator[None]:
        """Around a verification: what one takes says whether there is time for another."""
        begun = time.monotonic()
        yield
        self._overhead = max(self._overhead, time.monotonic() - begun)

    def say(self, line: str) -> None:
        """Show what was found, or what is done now."""
        if self._bar is not None:
            self._bar.print(line, highlight=False, markup=False)
            self._bar.update(self._task, completed=min(self.elapsed, self.seconds))
        else:
            typer.echo(f"[{self.elapsed:5.1f} s] {line}", err=True)
