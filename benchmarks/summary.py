"""The report of ``scripts/bench compare``: figures to reach, a section per work, plots; and where it is published."""

import shutil
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
        done = subprocess.run([python, PLOTS, folder], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"drawing the plots failed:\n{done.stderr}")
    return text


def section(result: dict[str, Any]) -> str:
    """One work: its table, who is missing and why, how it was measured and where."""
    lines = [result["table"] if "table" in result else report.table(result, title), ""]
    for name, reason in result.get("missing", {}).items():
        lines.append(f"Missing: {title(name)}, because: {' '.join(reason.split())}\n")
    lines.append(
        f"`{result['command']}` at `{result['commit']}`, {result['rounds']} interleaved rounds: medians, least and "
        f"most in brackets. Used by other programs before the start: {result['busy_percent']:.0f} % of the cores."
    )
    if result.get("paused"):
        lines.append(f"Stopped (SIGSTOP) while others were measured, as busy when idle: {', '.join(result['paused'])}.")
    lines.append(f"Machine: {result['machine']}.")
    return "\n".join(lines)


def publish(results: dict[str, Any], folder: Path, *, drop_in: bool) -> None:
    """The drop-in's table into benchmarks/README.md; else two works into README.md, all of it there, plots to docs."""
    if drop_in:
        text = "\n\n".join(section(result) for result in results.values())
        report.update_readme(ROOT / "benchmarks" / "README.md", text)
        return
    IMAGES.mkdir(parents=True, exist_ok=True)
    for plot in sorted(folder.glob("*.svg")):
        shutil.copy2(plot, IMAGES / plot.name)
    shown = {work: result for work, result in results.items() if work in ("noop", "classify")}
    text = "\n\n".join(section(result) for result in shown.values())
    report.update_readme(ROOT / "README.md", text)
    notes = {name: note for result in results.values() for name, note in result.get("notes", {}).items()}
    rows = "\n".join(f"| {name} | {note} |" for name, note in notes.items())
    whole = (folder / "report.md").read_text(encoding="utf-8").replace("\n## ", "\n### ")
    text = f"| server | configuration |\n| --- | --- |\n{rows}\n\n#{whole}"
    report.update_readme(ROOT / "benchmarks" / "README.md", text, "compare")
