"""mlserve beside TorchServe 0.12 on this machine: ``scripts/bench torchserve [--quick] [--update-readme]``.

Both servers are up for the whole run, idle while the other is measured (an idle server takes about 1 % of a core), and
are measured in turn within each round; the order is turned round every round. The in-process loop of the same handler
runs in the same rounds. So a slow spell of the machine hits every column alike, and ratios are taken within a round.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import models, report, servers, wrk
from benchmarks.inprocess import measure
from benchmarks.report import Row
from benchmarks.servers import Server

HERE = Path(__file__).resolve().parent
SCRATCH, RESULTS, README = HERE / ".scratch", HERE / "results", HERE.parent / "README.md"
BATCH = 8


@dataclass(frozen=True)
class Plan:
    """How long everything takes, in seconds."""

    rounds: int
    noop: float
    classify: float
    warm_up: float

    def total(self, count: int) -> float:
        """Seconds of load with ``count`` servers, without start-up."""
        per_round = count * (2 * self.noop + 2 * self.classify) + self.classify
        return self.rounds * per_round + count * 8 * self.warm_up


FULL = Plan(rounds=5, noop=5, classify=10, warm_up=2)
QUICK = Plan(rounds=2, noop=1, classify=3, warm_up=1)


def loads() -> list[Row]:
    """What is measured."""
    return [
        Row("no-op, 1 connection", "noop", 1),
        Row("no-op, 32 connections", "noop", 32),
        Row("EfficientNet-Lite0 on a JPEG, 8 connections", "classify", 8),
        Row("EfficientNet-Lite0 on a JPEG, 16 connections", "classify", 16),
    ]


def warm_up(running: Sequence[Server], rows: Sequence[Row], requests: dict[str, wrk.Request], seconds: float) -> None:
    """Load every server with every row once, and compare every answer."""
    for row in rows:
        # TorchScript compiles during the first batches of each size, which takes seconds.
        factor = 3 if row.model == "classify" else 1
        for server in running:
            request = requests[row.model]
            wrk.run(server.url, request, connections=row.connections, seconds=factor * seconds, checked=True)


def run_round(
    number: int, running: Sequence[Server], rows: Sequence[Row], requests: dict, plan: Plan, *, loop: bool
) -> None:
    """One round: every row on every server in turn, then, with ``loop``, the bare loop."""
    order = list(running) if number % 2 == 0 else list(reversed(running))
    for row in rows:
        seconds = plan.noop if row.model == "noop" else plan.classify
        for server in order:
            load = wrk.run(server.url, requests[row.model], connections=row.connections, seconds=seconds)
            row.loads.setdefault(server.name, []).append(load)
            print(
                f"round {number + 1}  {row.title:45} {server.name:10} {load.rate:9,.1f}/s  "
                f"p50 {load.p50_ms:8.2f} ms  p99 {load.p99_ms:8.2f} ms",
                flush=True,
            )
    if not loop:
        return
    request = requests["classify"]
    archive = SCRATCH / "model_store" / "classify.mar"
    rate = measure(sys.executable, archive, request.body, batch=BATCH, seconds=plan.classify, expect=request.expect)
    print(f"round {number + 1}  {'in-process loop, batches of 8':45} {'':10} {rate:9,.1f}/s", flush=True)
    for row in rows:
        if row.model == "classify":
            row.inprocess.append(rate)


def foreign_load() -> float:
    """Share of the cores that others use, in percent, measured before a server is up. Warns above 10."""
    busy = psutil.cpu_percent(interval=2.0)
    if busy > 10:
        print(f"warning: other programs use {busy:.0f} % of the cores; the figures will be poor", flush=True)
    return busy


def compare(names: Sequence[str], plan: Plan, *, drop_in: bool = False) -> list[Row]:
    """Prepare, start the servers, run the rounds, stop the servers; returns the filled rows."""
    wrk.find_wrk()
    SCRATCH.mkdir(exist_ok=True)
    mlserve = str(Path(sys.executable).parent / "mlserve")
    archiver = [mlserve, "archive"]
    if drop_in or "torchserve" in names:
        venv = servers.install_torchserve(SCRATCH, sys.executable)
    if drop_in or "mlserve" not in names:
        archiver = [str(venv / "bin" / "torch-model-archiver")]
    requests = models.prepare(SCRATCH, archiver, drop_in=drop_in)
    rows, running = loads(), []
    with ExitStack() as stack:
        for name in names:
            if name == "mlserve":
                start = servers.start_drop_in if drop_in else servers.start_mlserve
                server = start(SCRATCH, [mlserve])
            else:
                server = servers.start_torchserve(SCRATCH, venv)
            stack.callback(server.stop)
            running.append(server)
        for server in running:
            server.wait_ready(requests["classify"].body.read_bytes())
        warm_up(running, rows, requests, plan.warm_up)
        for number in range(plan.rounds):
            run_round(number, running, rows, requests, plan, loop=not drop_in)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(prog="scripts/bench torchserve", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two short rounds, under 90 s")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {FULL.rounds})")
    parser.add_argument("--only", choices=("mlserve", "torchserve"), help="measure one server alone")
    parser.add_argument(
        "--update-readme",
        action="store_true",
        help="put the table into README.md, that of --drop-in into benchmarks/README.md",
    )
    parser.add_argument(
        "--drop-in", action="store_true", help="both servers with one config.properties and TorchServe's own archives"
    )
    arguments = parser.parse_args(argv)
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = Plan(arguments.rounds, plan.noop, plan.classify, plan.warm_up)
    names = [arguments.only] if arguments.only else ["mlserve", "torchserve"]
    print(f"about {plan.total(len(names)):.0f} s of load on {', '.join(names)}", flush=True)

    started, busy = time.monotonic(), foreign_load()
    rows = compare(names, plan, drop_in=arguments.drop_in)
    titles = {"mlserve": "mlserve", "torchserve": "TorchServe"}
    command = " ".join(["scripts/bench torchserve", *(argv if argv is not None else sys.argv[1:])])
    command = command.replace(" --update-readme", "")
    text = report.markdown(rows, [titles[name] for name in names], command, plan.rounds, commit())
    name = "drop-in" if arguments.drop_in else "torchserve"
    text += f"Used by other programs before the start: {busy:.0f} % of the cores.\n"
    print(f"\n{text}\n{time.monotonic() - started:.0f} s; written to {report.write(rows, text, RESULTS, name)}")
    if arguments.update_readme:
        report.update_readme(HERE / "README.md" if arguments.drop_in else README, text)


def commit() -> str:
    """The short commit id of the checkout, marked when files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown commit"


if __name__ == "__main__":
    main()
