"""mlserve beside other model servers on this machine: ``scripts/bench compare [--peers a,b] [--work noop,echo,…]``.

Every work is one run of its own with its own file in ``results/compare``; the report is written from all the files that
are there, so that the works can be run one by one.
"""

import argparse
import fcntl
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import burst, grpc_load, peers, report, rounds, startup, steady, summary, wrk
from benchmarks.peers.base import Site
from benchmarks.works import WORKS

HERE = Path(__file__).resolve().parent
SITE = Site(HERE / ".scratch", sys.executable)
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Plan:
    """How much is done: rounds, the share of each row's seconds, warm-up in seconds, minutes of the steady run."""

    rounds: int
    scale: float
    warm_up: float
    minutes: float


FULL = Plan(rounds=4, scale=1, warm_up=1, minutes=10)
QUICK = Plan(rounds=2, scale=0.5, warm_up=1, minutes=1)


def measure_rows(work: str, chosen: Sequence[peers.Peer], plan: Plan, *, drop_in: bool = False) -> dict[str, Any]:
    """The interleaved rounds of a work with rows in a table."""
    wrk.find_wrk()
    outcome = rounds.measure(chosen, SITE, WORKS[work], plan, drop_in=drop_in)
    rows = [
        {
            "title": one.row.title,
            "connections": one.row.connections,
            "payloads": [payload.name for payload in one.row.payloads],
            "loads": {name: [asdict(load) for load in loads] for name, loads in one.loads.items()},
            "loop": one.loop,
            "failed": one.failed,
        }
        for one in outcome.rows
    ]
    return {"rows": rows, "missing": outcome.missing, "paused": outcome.paused, "notes": outcome.notes}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    **dict.fromkeys(WORKS, measure_rows),
    "grpc": lambda work, chosen, plan: grpc_load.measure(chosen, SITE, plan),
    "start": lambda work, chosen, plan: startup.measure(chosen, SITE, plan.rounds),
    "burst": lambda work, chosen, plan: burst.measure(chosen, SITE, plan.rounds),
    "steady": lambda work, chosen, plan: steady.measure(SITE, plan.minutes),
}


def measure(work: str, chosen: Sequence[peers.Peer], plan: Plan, command: str, *, drop_in: bool = False) -> None:
    """One work, and its file."""
    print(f"\n{work}: {', '.join(peer.TITLE for peer in chosen)}", flush=True)
    started, busy = time.monotonic(), report.foreign_load()
    more = {"drop_in": True} if drop_in else {}
    result = MEASURES[work](work, chosen, plan, **more)
    result |= {"work": work, "command": command, "commit": report.commit(), "machine": report.machine()}
    result.setdefault("rounds", plan.rounds)
    result |= {"busy_percent": busy, "seconds": round(time.monotonic() - started)}
    target = report.write(result, folder(drop_in), work)
    print(f"{result['seconds']} s; written to {target}", flush=True)


def folder(drop_in: bool) -> Path:
    """Where the results are."""
    return RESULTS / ("drop-in" if drop_in else "compare")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--peers", help=f"besides mlserve: {','.join(name for name in peers.PEERS if name != 'mlserve')}"
    )
    parser.add_argument("--work", help=f"of {','.join(MEASURES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="two short rounds: to see that it works")
    parser.add_argument("--rounds", type=report.count, help=f"rounds (default {FULL.rounds})")
    parser.add_argument("--minutes", type=report.amount, help=f"of the steady run (default {FULL.minutes:.0f})")
    parser.add_argument("--report", action="store_true", help="measure nothing: write the report of what was measured")
    parser.add_argument("--update-readme", action="store_true", help="put the report into README.md files and docs")
    parser.add_argument(
        "--drop-in", action="store_true", help="beside TorchServe with its own settings file, archiver and handlers"
    )
    arguments = parser.parse_args(argv)
    arguments.peers = _listed(parser, arguments.peers, [name for name in peers.PEERS if name != "mlserve"], "peer")
    every = ["noop", "classify"] if arguments.drop_in else list(MEASURES)
    arguments.work = _listed(parser, arguments.work, every, "work")
    if arguments.drop_in and arguments.peers != ["torchserve"]:
        parser.error("--drop-in compares with TorchServe alone: --peers torchserve")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print, write."""
    arguments = parse(argv)
    command = report.command("compare", sys.argv[1:] if argv is None else argv)
    plan = QUICK if arguments.quick else FULL
    plan = Plan(arguments.rounds or plan.rounds, plan.scale, plan.warm_up, arguments.minutes or plan.minutes)
    chosen = [peers.peer(name) for name in ("mlserve", *arguments.peers)]
    SITE.scratch.mkdir(exist_ok=True)
    with (SITE.scratch / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would use the same folders, and measure each other
        for work in [] if arguments.report else arguments.work:
            measure(work, chosen, plan, command, drop_in=arguments.drop_in)
    found = {path.stem: json.loads(path.read_text()) for path in folder(arguments.drop_in).glob("*.json")}
    results = {work: found[work] for work in MEASURES if work in found}
    text = summary.write(results, folder(arguments.drop_in), SITE, drop_in=arguments.drop_in)
    print(f"\n{text}\nwritten to {folder(arguments.drop_in)}")
    if arguments.update_readme:
        summary.publish(results, folder(arguments.drop_in), drop_in=arguments.drop_in)


def _listed(parser: argparse.ArgumentParser, text: str | None, known: list[str], what: str) -> list[str]:
    """A list of names from the command line, all of them by default."""
    names = known if text is None else [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            parser.error(f"there is no {what} {name!r}; there are {', '.join(known)}")
    return names


if __name__ == "__main__":
    main()
