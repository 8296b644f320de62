"""2,000 requests at once, each over a connection of its own, to the no-op handler: is each answered, and by when?

h2load opens the connections and sends a request on each as soon as it stands. All servers are up; each gets its burst
in turn within a round.
"""

import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.peers import Peer, described
from benchmarks.peers.base import Site
from benchmarks.rounds import Running, find_busy, start_all, warm_up
from benchmarks.works import WORKS, prepare
from benchmarks.wrk import Request

COUNT = 2000


def find_h2load() -> str:
    """The binary; raises RuntimeError with the install command if there is none."""
    path = shutil.which("h2load")
    if path is None:
        raise RuntimeError("h2load was not found; on Debian: apt-get install -y nghttp2-client")
    return path


def measure(chosen: Sequence[Peer], site: Site, rounds: int) -> dict[str, Any]:
    """``rounds`` bursts on every server."""
    prepare(site)
    work = WORKS["noop"]
    row = work.make_rows(site.assets)[2]
    found: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        running, missing = start_all(chosen, site, work.job(site), row, stack)
        missing |= warm_up(running, [row], 1)
        paused = find_busy(running)
        for number in range(rounds):
            turned = running[number % len(running) :] + running[: number % len(running)]
            for each in turned:
                try:
                    one = once(each, each.awake(row))
                except RuntimeError as error:
                    print(f"{each.peer.TITLE}: {error}", file=sys.stderr, flush=True)
                    missing[each.peer.NAME] = str(error).strip().splitlines()[-1][:300]
                    continue
                finally:
                    each.rest()
                found.setdefault(each.peer.NAME, []).append(one)
                print(f"round {number + 1}  burst  {each.peer.TITLE:10} {one}", flush=True)
    notes = {each.peer.TITLE: described(each.peer, site) for each in running}
    titles = {peer.NAME: peer.TITLE for peer in chosen}
    return {"servers": found, "missing": missing, "paused": paused, "notes": notes, "table": table(found, titles)}


def once(each: Running, request: Request) -> dict[str, float]:
    """Answers, failures, seconds to the last answer, and the longest wait of one request in ms."""
    headers = [f"content-type: {request.content_type}", *(f"{name}: {value}" for name, value in request.headers)]
    command = [find_h2load(), "--h1", "-n", str(COUNT), "-c", str(COUNT), "-t", "1", "-T", "60", "-N", "60"]
    command += ["-d", str(request.bodies[0]), *(word for header in headers for word in ("-H", header))]
    done = subprocess.run(
        [*command, each.server.url + request.path], capture_output=True, text=True, timeout=180, check=False
    )
    return read(done.stdout)


def read(output: str) -> dict[str, float]:
    """What h2load reports; raises RuntimeError if it reports nothing."""
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    statuses = re.search(r"status codes: (\d+) 2xx", output)
    took = re.search(r"finished in ([\d.]+)(us|ms|s)", output)
    longest = re.search(r"time for request: +\S+ +([\d.]+)(us|ms|s)", output)
    if not counts or not statuses or not took or not longest:
        raise RuntimeError(f"h2load said:\n{output}")
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
    return {
        "answered": float(statuses[1]),
        "failed": float(COUNT - int(statuses[1])),
        "last_s": float(took[1]) * unit[took[2]],
        "longest_ms": float(longest[1]) * unit[longest[2]] * 1000,
    }


def table(found: dict[str, list[dict[str, float]]], titles: dict[str, str]) -> str:
    """Markdown: a line per server, medians over rounds, failures added up."""
    lines = [f"| server | answered of {COUNT:,} | failed in all rounds | last answer after, s | longest request, ms |"]
    lines.append("| --- |" + " ---: |" * 4)
    for name, rounds in found.items():
        answered, last, longest = (
            statistics.median(one[key] for one in rounds) for key in ("answered", "last_s", "longest_ms")
        )
        failed = sum(one["failed"] for one in rounds)
        lines.append(f"| {titles[name]} | {answered:,.0f} | {failed:,.0f} | {last:.2f} | {longest:,.0f} |")
    return "\n".join(lines)
