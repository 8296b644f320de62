"""From the launch to the first answer, from a call of scale to the second worker, and the memory of it all.

One server runs at a time. The first answer is that to the work's own request, asked for every 5 ms. The second worker
is asked for by ``PUT /models/NAME?min_worker=2&synchronous=true``; mlserve and TorchServe answer when it is ready.
Memory is read after 3 s of load at 32 connections (no-op) or 8 (EfficientNet).
"""

import contextlib
import statistics
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

import psutil

from benchmarks import wrk
from benchmarks.peers import FAILURES, Peer, described
from benchmarks.peers.base import Job, Site, ask
from benchmarks.rounds import absent
from benchmarks.servers import Server
from benchmarks.works import WORKS, prepare

LOADED = {"noop": 32, "classify": 8}  # connections
JOBS = tuple(LOADED)
SETTLE = 1.5  # seconds until memory is read: what runs behind the first answer is over
MIB = 2**20


def measure(chosen: Sequence[Peer], site: Site, rounds: int) -> dict[str, Any]:
    """Start every server once in each round; the order is turned every round."""
    prepare(site)
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    missing: dict[str, str] = {}
    for peer in list(chosen):
        try:
            peer.install(site)
        except FAILURES as error:
            missing[peer.NAME] = absent(peer, error)
    for number in range(rounds):
        for name in JOBS:
            present = [peer for peer in chosen if peer.NAME not in missing]
            turned = present[number % len(present) :] + present[: number % len(present)]
            for peer in turned:
                try:
                    one = start_once(peer, site, WORKS[name].job(site))
                except FAILURES as error:
                    missing[peer.NAME] = absent(peer, error)
                    continue
                found.setdefault(peer.NAME, {}).setdefault(name, []).append(one)
                shown = "  ".join(f"{key} {value:.2f}" for key, value in one.items())
                print(f"round {number + 1}  {name:10} {peer.TITLE:10} {shown}", flush=True)
    notes = {peer.TITLE: described(peer, site) for peer in chosen if peer.NAME in found}
    return {
        "servers": found,
        "missing": missing,
        "notes": notes,
        "figures": figures(found),
        "table": table(chosen, found),
    }


def start_once(peer: Peer, site: Site, job: Job) -> dict[str, float]:
    """Seconds and MiB of one start and, where there is a management API, of one more worker."""
    row = WORKS[job.name].make_rows(site.assets)[0]
    request = peer.request(site, job, row.payloads)
    server = peer.start(site, job)
    try:
        result = {"start_s": server.wait_ready(lambda: ask(server.url, request)[0] == 200)}
        with contextlib.suppress(RuntimeError):  # not one answer in the time: worked all the same
            wrk.run(server.url, request, connections=LOADED[job.name], seconds=3)
        server.settle()
        time.sleep(SETTLE)
        result |= memory(server, "")
        result |= frontend(server)
        if "management" in server.ports:
            result["scale_s"] = scale(server, job)
            time.sleep(SETTLE)
            result |= {f"two_{key}": value for key, value in memory(server, "").items()}
        return result
    finally:
        server.stop()


def scale(server: Server, job: Job) -> float:
    """Seconds until the second worker is ready."""
    url = f"http://127.0.0.1:{server.ports['management']}/models/{job.name}?min_worker=2&synchronous=true"
    started = time.perf_counter()
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=120) as reply:
        if reply.status not in (200, 202):
            raise RuntimeError(f"{server.name} answers {reply.status} to scale")
    return time.perf_counter() - started


def memory(server: Server, prefix: str) -> dict[str, float]:
    """Sums over all processes, in MiB: RSS counts shared pages in each, PSS divides them among those that share."""
    rss = pss = 0
    for process in server.family():
        try:
            used = process.memory_full_info()
        except psutil.NoSuchProcess:
            continue
        rss, pss = rss + used.rss, pss + used.pss
    return {f"{prefix}rss_mib": rss / MIB, f"{prefix}pss_mib": pss / MIB}


def frontend(server: Server) -> dict[str, float]:
    """The same of the process that takes the requests, where that is one: mlserve's first, TorchServe's JVM."""
    family = server.family()
    found = [process for process in family if process.name() == "java"]
    if server.name == "mlserve":
        found = family[:1]
    if not found:
        return {}
    used = found[0].memory_full_info()
    return {"front_rss_mib": used.rss / MIB, "front_pss_mib": used.pss / MIB}


def figures(found: dict[str, Any]) -> dict[str, float]:
    """mlserve's as a share of TorchServe's, the median over rounds."""
    ours, theirs = found.get("mlserve"), found.get("torchserve")
    if not ours or not theirs or ours.keys() != theirs.keys():
        return {}

    def share(job: str, key: str) -> float:
        pairs = zip(ours[job], theirs[job], strict=False)
        return statistics.median(mine[key] / other[key] for mine, other in pairs)

    result = {f"start {job}": share(job, "start_s") for job in JOBS}
    return result | {"scale": share("classify", "scale_s"), "frontend memory": share("noop", "front_pss_mib")}


def table(chosen: Sequence[Peer], found: dict[str, Any]) -> str:
    """Markdown: a line per server and work, medians."""
    lines = [
        "| work | server | start to first answer, s | scale 1 to 2, s | front end RSS / PSS, MiB | "
        "all processes RSS / PSS, MiB | one more worker RSS / PSS, MiB |",
        "| --- | --- |" + " ---: |" * 5,
    ]
    for job in JOBS:
        for peer in chosen:
            rounds = found.get(peer.NAME, {}).get(job)
            if not rounds:
                continue

            def middle(key: str, rounds: list[dict[str, float]] = rounds) -> float | None:
                values = [one[key] for one in rounds if key in one]
                return statistics.median(values) if values else None

            more = [(middle(f"two_{kind}_mib"), middle(f"{kind}_mib")) for kind in ("rss", "pss")]
            grown = [two - one if two and one else None for two, one in more]
            cells = [_text(middle("start_s"), 2), _text(middle("scale_s"), 2)]
            cells += [
                " / ".join(_text(middle(f"{part}{kind}_mib")) for kind in ("rss", "pss")) for part in ("front_", "")
            ]
            cells += [" / ".join(map(_text, grown))]
            lines.append(f"| {WORKS[job].title} | {peer.TITLE} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _text(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
