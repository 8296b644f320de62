"""The plot of ``mlserve bench``: throughput, and p50 and p99, against concurrency or offered rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlserve.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMATS = (".png", ".svg")


def check_plot(file: str) -> None:
    """Before anything is measured: raises :class:`SettingError` for a plot that could not be drawn afterwards."""
    if Path(file).suffix.lower() not in FORMATS:
        raise SettingError(f"--plot: {file} is to end with {' or '.join(FORMATS)}")
    pyplot()


def draw(file: str, curve: Mapping[str, Sequence[float]], *, level: str, title: str) -> None:
    """Write ``curve`` (level, rate, p50, p99; latencies in milliseconds) to ``file``. ``level`` names the x axis."""
    figure_of, ticker = pyplot()
    levels = curve["level"]
    figure = figure_of(figsize=(7.5, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(levels, curve["rate"], "o-", color="#1f6feb")
    above.set_ylabel("answers per second")
    above.set_ylim(0, max(curve["rate"]) * 1.1 or 1)
    below.plot(levels, curve["p50"], "o-", color="#2da44e", label="p50")
    below.plot(levels, curve["p99"], "o-", color="#cf222e", label="p99")
    below.set_ylabel("latency, ms")
    below.set_yscale("log")
    below.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))  # a sweep rarely spans two powers of ten
    below.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    below.yaxis.set_minor_locator(ticker.NullLocator())
    below.legend()
    below.set_xlabel(level)
    if len(levels) > 1 and max(levels) / min(levels) > 8:
        below.set_xscale("log", base=2)
    below.set_xticks(list(levels), [f"{value:,g}" for value in levels])
    below.minorticks_off()
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10)
    figure.savefig(file, dpi=130)


def pyplot() -> tuple[Any, Any]:
    """matplotlib's figure without a display, and its tickers."""
    try:
        from matplotlib import ticker
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingError(f"--plot draws with matplotlib ({error}): pip install 'mlserve[plot]'") from None
    return Figure, ticker
