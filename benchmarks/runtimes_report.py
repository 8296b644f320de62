"""What ``scripts/bench runtimes`` found, as a table and as JSON: shares of the loop, round by round."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, steal
from benchmarks.runtimes_models import BATCH, Case

RESULTS = Path(__file__).resolve().parent / "results"
TARGET = 0.95
HEAD = """\
| model | runtime | loop, rows/s | served as the loop | share of the loop | served as recommended | share of the loop \
| CPU ms/row: loop, served, recommended | stolen |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


@dataclass
class Series:
    """One contender's rounds: rows per second of each; of all of them the CPU ms per row and the mean batch."""

    rates: list[float] = field(default_factory=list)
    cpu: float = 0.0
    batch: float = float(BATCH)

    def shares(self, loop: "Series") -> list[float]:
        """Of what the loop did in the same round."""
        return [ours / bare for ours, bare in zip(self.rates, loop.rates, strict=True)]


@dataclass
class Result:
    """One case. ``recommended`` is None where the settings of the loop are those that we would recommend."""

    case: Case
    runtime: str
    loop: Series = field(default_factory=Series)
    served: Series = field(default_factory=Series)
    recommended: Series | None = None
    stolen: list[float] = field(default_factory=list)

    @property
    def best(self) -> Series:
        """Served with the settings that we would recommend."""
        return self.recommended or self.served


def table(results: Sequence[Result]) -> str:
    """The Markdown table: a line per case."""
    lines = [HEAD]
    for one in results:
        cpu = [one.loop.cpu, one.served.cpu, *([one.recommended.cpu] if one.recommended else [])]
        lines.append(
            f"| {one.case.title} | {one.case.runtime} ({one.runtime}) | {np.median(one.loop.rates):,.1f} "
            f"| {_rate(one.served)} | {report.spread(one.served.shares(one.loop), 3)} | {_rate(one.recommended)} "
            f"| {report.spread(one.recommended.shares(one.loop), 3) if one.recommended else 'the same'} "
            f"| {', '.join(f'{value:.2f}' for value in cpu)} | {steal.shown(one.stolen)} |"
        )
    return "\n".join(lines)


def _rate(series: Series | None) -> str:
    return f"{np.median(series.rates):,.1f}, batch {series.batch:.2f}" if series else "the same"


def markdown(results: Sequence[Result], command: str, rounds: int, seconds: float, busy: float) -> str:
    """The whole section: the table, what its columns are, how it was measured and where."""
    below = [one.case.name for one in results if np.median(one.served.shares(one.loop)) < TARGET]
    best = [one.case.name for one in results if np.median(one.best.shares(one.loop)) < TARGET]
    return (
        f"{table(results)}\n\n"
        f"- loop: batches of {BATCH}, one after the other, by all of the worker's threads.\n"
        f"- served as the loop: `batchSize: {BATCH}`, one batch at a time by all of the worker's threads; what is "
        f"below 1 is what serving costs. Below {TARGET}: {', '.join(below) or 'none'}.\n"
        f"- served as recommended: the same model on the same cores, in the same rounds. {settings(results)} "
        f"Where it is more than 1, the loop's way of using the cores is not the runtime's best. "
        f"Below {TARGET}: {', '.join(best) or 'none'}.\n\n"
        f"`{command}` at `{report.commit()}`: medians over {rounds} interleaved rounds of {seconds:g} s each, of "
        f"shares with the least and the most. One worker, {2 * BATCH} connections. Before that, answers of each server "
        "were compared with the loop's, number by number. Stolen is what the host took of the cores meanwhile.\n\n"
        f"Machine: {report.machine()}.\n"
        f"Used by other programs before the start: {busy:.0f} % of the cores.\n"
    )


def settings(results: Sequence[Result]) -> str:
    """Which settings are recommended for which rows, in words."""
    rows: dict[str, list[str]] = {}
    for one in results:
        rows.setdefault(one.case.recommended, []).append(one.case.name)
    said = [f"`{text.replace(chr(10), ', ')}` for {', '.join(names)}." for text, names in rows.items() if text]
    return " ".join([*said, *(f"Those of the loop for {', '.join(rows[''])}." for _ in rows.get("", [])[:1])])


def write(results: Sequence[Result], text: str) -> Path:
    """``runtimes.json`` and ``runtimes.md``; returns the latter."""
    RESULTS.mkdir(exist_ok=True)
    rows = [
        {
            "model": one.case.model,
            "runtime": one.case.runtime,
            "version": one.runtime,
            "loop": _series(one.loop, one.loop),
            "served": _series(one.served, one.loop),
            "settings": one.case.recommended,
            "recommended": _series(one.recommended, one.loop) if one.recommended else None,
            "stolen": one.stolen,
        }
        for one in results
    ]
    data = {"machine": report.machine(), "commit": report.commit(), "rows": rows}
    (RESULTS / "runtimes.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    target = RESULTS / "runtimes.md"
    target.write_text(text, encoding="utf-8")
    return target


def _series(series: Series, loop: Series) -> dict[str, Any]:
    return {"rates": series.rates, "shares": series.shares(loop), "mean_batch": series.batch, "cpu_ms": series.cpu}
