"""mlserve alone under the same load for minutes: does p99 or memory drift?

32 connections of the no-op handler, kept busy all the time, in ten windows or more. The first window is warm-up and is
shown, but not compared. A window is six runs of wrk, and its latencies are the medians of theirs: what the host takes
comes in bursts, and one second of 60 is enough for the p99 of all (0.9 % stolen: 2.0 ms; 0.1 %: 1.2 to 1.4).
"""

import statistics
from collections.abc import Sequence
from typing import Any

import psutil

from benchmarks import wrk
from benchmarks.peers import peer
from benchmarks.peers.base import Site, ask
from benchmarks.servers import Server
from benchmarks.works import WORKS, prepare

CONNECTIONS = 32
RUNS = 6  # in a window


def measure(site: Site, minutes: float) -> dict[str, Any]:
    """A line per window (a minute in runs of ten minutes and more), and the drift from the second to the last."""
    prepare(site)
    ours, work = peer("mlserve"), WORKS["noop"]
    job, row = work.job(site), work.make_rows(site.assets)[2]
    count = max(10, round(minutes))
    seconds = minutes * 60 / count
    server, request, found = ours.start(site, job), ours.request(site, job, row.payloads), []
    try:
        server.wait_ready(lambda: ask(server.url, request)[0] == 200)
        wrk.run(server.url, request, connections=CONNECTIONS, seconds=1, checked=True)
        for number in range(count):
            runs = [wrk.run(server.url, request, connections=CONNECTIONS, seconds=seconds / RUNS) for _ in range(RUNS)]
            found.append({**window(runs), **memory(server)})
            print(f"window {number + 1} of {seconds:.0f} s  {found[-1]}", flush=True)
    finally:
        server.stop()
    return {
        "rounds": 0,
        "minutes": found,
        "seconds_each": seconds,
        "figures": figures(found),
        "table": table(found, seconds),
    }


def window(runs: Sequence[wrk.Load]) -> dict[str, float]:
    """All runs of a window as one: medians of the latencies, else means, and all errors."""
    return {
        "rate": statistics.mean(one.rate for one in runs),
        "p50_ms": statistics.median(one.p50_ms for one in runs),
        "p99_ms": statistics.median(one.p99_ms for one in runs),
        "errors": sum(one.errors for one in runs),
        "stolen": statistics.mean(one.stolen for one in runs),
    }


def memory(server: Server) -> dict[str, int]:
    """RSS and PSS in bytes of the front end, and of all other processes together."""
    result = dict.fromkeys(("frontend_rss", "frontend_pss", "workers_rss", "workers_pss"), 0)
    for number, process in enumerate(server.family()):
        try:
            used = process.memory_full_info()
        except psutil.NoSuchProcess:
            continue
        part = "workers" if number else "frontend"
        result[f"{part}_rss"] += used.rss
        result[f"{part}_pss"] += used.pss
    return result


def figures(found: list[dict[str, float]]) -> dict[str, float]:
    """Growth of all memory from the second window to the last; p99 of the last three windows over the first three."""
    first, last = (found[number]["frontend_pss"] + found[number]["workers_pss"] for number in (1, -1))
    early, late = (statistics.median(one["p99_ms"] for one in part) for part in (found[1:4], found[-3:]))
    return {"memory growth": last / first - 1, "p99 drift": late / early - 1}


def table(found: list[dict[str, float]], seconds: float) -> str:
    """Markdown: a line per window."""
    head = "| after, s | answers/s | median ms | p99 ms | stolen | errors | front end RSS / PSS, MiB "
    lines = [head + "| others RSS / PSS, MiB |", "| ---: |" + " ---: |" * 7]
    for number, one in enumerate(found):
        parts = [
            " / ".join(f"{one[f'{part}_{kind}'] / 2**20:.1f}" for kind in ("rss", "pss"))
            for part in ("frontend", "workers")
        ]
        lines.append(
            f"| {(number + 1) * seconds:.0f} | {one['rate']:,.0f} | {one['p50_ms']:.2f} | {one['p99_ms']:.2f} | "
            f"{one['stolen']:.0%} | {one['errors']:.0f} | {' | '.join(parts)} |"
        )
    return "\n".join(lines)
