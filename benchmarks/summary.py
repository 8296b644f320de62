"""The report of ``scripts/bench compare``: figures to reach, a section per work, plots; and where it is published."""

import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

from benchmarks import peers, report, targets
from benchmarks.peers.base import ROOT, Site

PLOTS = Path(__file__).parent / "plots.py"
IMAGES = ROOT / "docs" / "images"


def title(name: str) -> str:
    """What the tables call a peer."""
    return peers.peer(name).TITLE


def write(results: dict[str, Any], folder: Path, site: Site, *, drop_in: bool) -> str:
    """``report.md`` in ``folder``, with the plots beside it; returns its text."""
    parts = [] if drop_in else [f"## Figures to reach\n\n{targets.table(results)}\n"]
    parts += [f"## {work}\n\n{section(result)}\n" for work, result in results.items()]
    text = "\n".join(parts)
    (folder / "report.md").write_text(text, encoding="utf-8")
    python = site.scratch / "compute" / "bin" / "python"
    if not drop_in and python.exists():
        titles = [f"{name}={title(name)}" for name in peers.PEERS]
        done = subprocess.run([python, PLOTS, folder, *titles], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"drawing the plots failed:\n{done.stderr}")
    return text


def section(result: dict[str, Any]) -> str:
    """One work: its table, who is missing and why, how it was measured and where."""
    lines = [result["table"] if "table" in result else report.table(result, title), ""]
    for name, reason in result.get("missing", {}).items():
        lines.append(f"Missing: {title(name)}, because: {' '.join(reason.split())}\n")
    how = f", {result['rounds']} interleaved rounds: medians, least and most in brackets" if result["rounds"] else ""
    busy = f"Used by other programs before the start: {result['busy_percent']:.0f} % of the cores."
    lines.append(f"`{result['command']}` at `{result['commit']}`{how}. {busy}")
    if result.get("paused"):
        lines.append(f"Stopped (SIGSTOP) while others were measured, as busy when idle: {', '.join(result['paused'])}.")
    lines.append(f"Machine: {result['machine']}.")
    return "\n".join(lines)


def compact(results: dict[str, Any]) -> str:
    """One table of all works in rounds: a line per row, a column per server, answers per second."""
    rows = [row for result in results.values() for row in result.get("rows", [])]
    names = [name for name in peers.PEERS if any(name in row["loads"] for row in rows)]
    looped = any(row["loop"] for row in rows)
    titles = [*map(title, names), *["bare loop"] * looped]
    lines = [f"| answers per second | {' | '.join(titles)} |", "| --- |" + " ---: |" * len(titles)]
    for row in rows:
        cells = [
            report.rate(report.median(row["loads"][name], "rate")) if row["loads"].get(name) else "–" for name in names
        ]
        cells += [report.rate(statistics.median(row["loop"])) if row["loop"] else "–"] * looped
        lines.append(f"| {row['title']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def configurations(results: dict[str, Any]) -> dict[str, str]:
    """How each server was configured; where that was not the same in all works, with the works of each."""
    found: dict[str, dict[str, list[str]]] = {}
    for work, result in results.items():
        for name, note in result.get("notes", {}).items():
            found.setdefault(name, {}).setdefault(note, []).append(work)
    return {
        name: next(iter(notes))
        if len(notes) == 1
        else "; ".join(f"{', '.join(of)}: {one}" for one, of in notes.items())
        for name, notes in found.items()
    }


def publish(results: dict[str, Any], folder: Path, *, drop_in: bool) -> None:
    """Everything into benchmarks/README.md, one table and plot into README.md, the plots into docs."""
    if drop_in:
        text = "\n\n".join(section(result) for result in results.values())
        report.update_readme(ROOT / "benchmarks" / "README.md", text)
        return
    IMAGES.mkdir(parents=True, exist_ok=True)
    plots = sorted(folder.glob("*.svg"))
    for plot in plots:
        shutil.copy2(plot, IMAGES / plot.name)
    commits = ", ".join(sorted({f"`{result['commit']}`" for result in results.values()}))
    text = f"{compact(results)}\n\n"
    if "noop" in results:
        text += "![Throughput, median and p99 of the no-op against connections](docs/images/compare-noop.svg)\n\n"
    text += f"`scripts/bench compare` at {commits}: medians over interleaved rounds. "
    text += "One worker, batch size 8, batch delay 5 ms; every answer is checked before. "
    text += f"Machine: {next(iter(results.values()))['machine']}.\n"
    report.update_readme(ROOT / "README.md", text)
    rows = "\n".join(f"| {name} | {note} |" for name, note in configurations(results).items())
    whole = (folder / "report.md").read_text(encoding="utf-8").replace("\n## ", "\n### ")
    images = "\n".join(f"![{plot.stem}](../docs/images/{plot.name})" for plot in plots)
    text = f"| server | configuration |\n| --- | --- |\n{rows}\n\n#{whole}\n{images}"
    report.update_readme(ROOT / "benchmarks" / "README.md", text, "compare")
