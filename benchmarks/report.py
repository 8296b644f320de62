"""From rounds to a table: medians, ratios round by round, the machine, Markdown and JSON."""

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from benchmarks.wrk import Load

START, END = "<!-- bench:start -->", "<!-- bench:end -->"


@dataclass
class Row:
    """One line of the table: the load, and what each server gave in each round."""

    title: str
    model: str
    connections: int
    loads: dict[str, list[Load]] = field(default_factory=dict)
    inprocess: list[float] = field(default_factory=list)

    def median(self, server: str, value: Callable[[Load], float]) -> float:
        """The median over rounds of one figure of one server."""
        return statistics.median(value(load) for load in self.loads[server])


def machine() -> str:
    """The machine and the versions, in one sentence."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        cpu = found[1].strip() if found else cpu
    memory = psutil.virtual_memory().total / 2**30
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr.split("\n")[0]
    return (
        f"{cpu}, {len(os.sched_getaffinity(0))} cores shared by client and servers, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {java}"
    )


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``median (least–most)``."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def ratios(row: Row, value: Callable[[Load], float], ours: str, theirs: str) -> list[float]:
    """``ours / theirs`` of one figure, round by round: a drift of the machine hits both sides of a ratio."""
    pairs = zip(row.loads[ours], row.loads[theirs], strict=True)
    return [value(mine) / value(other) for mine, other in pairs]


def table(rows: Sequence[Row], servers: Sequence[str]) -> str:
    """The Markdown table: a line per load and server, with the ratios to the second server and to the bare loop."""
    looped = any(row.inprocess for row in rows)
    head = "| load | server | answers/s | median ms | p99 ms | rate / TorchServe | median / TorchServe |"
    lines = [head + " rate / loop |" * looped, "| --- | --- |" + " ---: |" * (5 + looped)]
    for row in rows:
        for server in servers:
            rate, p50, p99 = (row.median(server, value) for value in (rate_of, p50_of, p99_of))
            line = f"| {row.title} | {server} | {rate:,.0f} | {p50:.2f} | {p99:.2f} "
            if server != servers[-1]:
                line += f"| {spread(ratios(row, rate_of, server, servers[-1]))} "
                line += f"| {spread(ratios(row, p50_of, server, servers[-1]), 3)} "
            else:
                line += "| 1 | 1 " if len(servers) > 1 else "| – | – "
            loop = [load.rate / own for load, own in zip(row.loads[server], row.inprocess, strict=False)]
            lines.append(line + f"| {spread(loop) if loop else '–'} |" if looped else line + "|")
        if row.inprocess:
            lines.append(f"| {row.title} | in-process loop | {statistics.median(row.inprocess):,.1f} | | | | | 1 |")
    return "\n".join(lines)


def rate_of(load: Load) -> float:
    """Answers per second."""
    return load.rate


def p50_of(load: Load) -> float:
    """Median latency in ms."""
    return load.p50_ms


def p99_of(load: Load) -> float:
    """99th percentile of latency in ms."""
    return load.p99_ms


def markdown(rows: Sequence[Row], servers: Sequence[str], command: str, rounds: int, commit: str) -> str:
    """The whole section: table, then how it was measured and where."""
    loop = "The loop is the same handler on batches of 8 in one process, no server."
    return (
        f"{table(rows, servers)}\n\n"
        f"`{command}` at `{commit}`: medians over {rounds} interleaved rounds, least and most round in brackets. One "
        "worker, batch size 8, batch delay 5 ms, the same archives; both servers with their default logging. Before "
        "the timed runs every row is run once on every server with each answer compared to the right one. "
        f"{loop if any(row.inprocess for row in rows) else ''}\n\nMachine: {machine()}.\n"
    )


def write(rows: Sequence[Row], text: str, folder: Path, name: str) -> Path:
    """``name.json`` and ``name.md`` in ``folder``; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    (folder / f"{name}.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    target = folder / f"{name}.md"
    target.write_text(text, encoding="utf-8")
    return target


def update_readme(readme: Path, text: str) -> None:
    """Put ``text`` between the two markers; raises RuntimeError if the file lacks them."""
    old = readme.read_text(encoding="utf-8")
    if START not in old or END not in old:
        raise RuntimeError(f"{readme} has no section between {START} and {END}")
    before, after = old.split(START)[0], old.split(END)[1]
    readme.write_text(f"{before}{START}\n{text}{END}{after}", encoding="utf-8")
