"""From rounds to tables: medians, ratios round by round, the machine, and sections of Markdown files."""

import json
import os
import platform
import re
import shlex
import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import steal

HERE = Path(__file__).resolve().parent
Load = dict[str, float]


def amount(text: str) -> float:
    """A number above 0 of the command line; raises ValueError, of which argparse makes an error, for others."""
    if not 0 < float(text) < float("inf"):
        raise ValueError(text)
    return float(text)


def count(text: str) -> int:
    """The same, whole."""
    amount(text)
    return int(text)


def machine() -> str:
    """The machine and the versions, in one sentence."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        cpu = found[1].strip() if found else cpu
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{cpu}, {len(os.sched_getaffinity(0))} cores shared by client and servers, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def foreign_load() -> float:
    """Share of the cores that others use, in percent, measured before a server is up. Warns above 10."""
    busy = psutil.cpu_percent(interval=2.0)
    if busy > 10:
        print(f"warning: other programs use {busy:.0f} % of the cores; the figures will be poor", flush=True)
    return float(busy)


def commit() -> str:
    """The short commit id of the checkout, marked when files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown commit"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``median (least–most)``."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})"


def compact(values: Sequence[float]) -> str:
    """``spread`` with as many digits as a ratio of that size needs."""
    middle = statistics.median(values)
    return spread(values, 3 if middle < 0.2 else 2 if middle < 20 else 0)


def median(loads: Sequence[Load], name: str) -> float:
    """The median over rounds of one figure."""
    return statistics.median(load[name] for load in loads)


def ratios(ours: Sequence[Load], theirs: Sequence[Load], name: str) -> list[float]:
    """``ours / theirs`` of one figure, round by round: a drift of the machine hits both sides of a ratio."""
    return [mine[name] / other[name] for mine, other in zip(ours, theirs, strict=False)]


def table(result: dict[str, Any], title: Callable[[str], str]) -> str:
    """The Markdown table of one work: a line per row and server, mlserve's ratios to each peer, errors if any."""
    looped = any(row["loop"] for row in result["rows"])
    head = "| load | server | answers/s | median ms | p99 ms | CPU ms per answer | stolen "
    head += "| mlserve's rate / its | mlserve's median / its |"
    lines = [head + " its rate / loop |" * looped, "| --- | --- |" + " ---: |" * (7 + looped)]
    for row in result["rows"]:
        ours = row["loads"].get("mlserve", [])
        for server, loads in row["loads"].items():
            errors = sum(int(load["errors"]) for load in loads)
            line = f"| {row['title']} | {title(server)} | {rate(median(loads, 'rate'))}"
            line += f"{f' ({errors} errors)' if errors else ''} "
            line += (
                f"| {median(loads, 'p50_ms'):,.2f} | {median(loads, 'p99_ms'):,.2f} | {median(loads, 'cpu_ms'):,.3g} "
                f"| {steal.shown([load.get('stolen') for load in loads])} "
            )
            if server == "mlserve":
                line += "| 1 | 1 |"
            elif ours:
                line += f"| {compact(ratios(ours, loads, 'rate'))} | {compact(ratios(ours, loads, 'p50_ms'))} |"
            else:
                line += "| – | – |"
            shares = [load["rate"] / own for load, own in zip(loads, row["loop"], strict=False)]
            lines.append(line + (f" {spread(shares)} |" if shares else " – |" if looped else ""))
        for server, reason in row["failed"].items():
            lines.append(f"| {row['title']} | {title(server)} | failed: {_cell(reason)} | | | | | | |" + " |" * looped)
        if row["loop"]:
            lines.append(
                f"| {row['title']} | in-process loop | {rate(statistics.median(row['loop']))} | | | | | | | 1 |"
            )
    return "\n".join(lines)


def command(name: str, words: Sequence[str]) -> str:
    """The command line that measures the same again, as it is to be typed."""
    return shlex.join(["scripts/bench", name, *(word for word in words if word != "--update-readme")])


def write(result: dict[str, Any], folder: Path, name: str) -> Path:
    """``name.json`` in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.json"
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return target


def update_readme(readme: Path, text: str, name: str = "bench") -> None:
    """Put ``text`` between the markers called ``name``; raises RuntimeError if the file lacks them."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    old = readme.read_text(encoding="utf-8")
    if start not in old or end not in old:
        raise RuntimeError(f"{readme} has no section between {start} and {end}")
    before, after = old.split(start)[0], old.split(end)[1]
    readme.write_text(f"{before}{start}\n{text.rstrip()}\n{end}{after}", encoding="utf-8")


def rate(value: float) -> str:
    """Answers per second, with a decimal where there are few."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "/")[:200]
