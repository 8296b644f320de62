"""What batching policies and overlap give on real models: ``scripts/bench batching [--quick] [--update-readme]``.

One mlserve has every model in its variants side by side: eager and adaptive, without a latency target and with one that
cannot be met, one batch at a time and a thread per core, preprocessed in turn or ahead. In a round the first variant of
a row is measured first and last and the others between: a ratio is another's figure over the mean of those two, and
what the two differ by is the noise.
"""

import argparse
import fcntl
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import report, wrk
from benchmarks.peers import mlserve_peer
from benchmarks.peers.archives import pack
from benchmarks.peers.base import BATCH, HANDLERS, Job, Site, ask, plain
from benchmarks.peers.environment import environ
from benchmarks.servers import Server, batches, free_ports, launch
from benchmarks.works import WORKS, Row, prepare

HERE = Path(__file__).resolve().parent
SITE, RESULTS = Site(HERE / ".scratch", sys.executable), HERE / "results"
SHARE = 0.6  # of what eager answers in a second, offered in the rows with a fixed rate
LEARNS = 15.0  # seconds of load before adaptive is measured: it has found its best size by then
ROOMY, TIGHT = 3.0, 0.5  # targets: times of a full batch, and of a lone request


@dataclass(frozen=True)
class Variant:
    """A model as one variant of a row has it: ``settings`` are lines of its model-config.yaml."""

    name: str
    job: Job
    settings: str = ""


@dataclass
class Case:
    """A row: the bodies, and its variants, the one that others are compared with first. With a ``rate`` (requests a
    second) it is an open loop, and what counts is the 99th percentile, against ``target`` in ms."""

    title: str
    row: Row
    variants: list[Variant]
    seconds: float
    rate: float = 0.0
    target: float = 0.0
    figures: dict[str, list[float]] = field(default_factory=dict)  # by variant; the first has two of each round
    cpu: dict[str, list[float]] = field(default_factory=dict)  # the same, CPU ms an answer


def variant(work: str, name: str, settings: str = "", handler: Path | None = None) -> Variant:
    """A model called ``work-name``."""
    job = WORKS[work].job(SITE)
    return Variant(name, Job(f"{work}-{name}", handler or job.handler, job.files), settings)


def cases(capacity: float, lone_ms: float, full_ms: float) -> list[Case]:
    """The rows, for EfficientNet's answers a second and its times of a lone request and of a full batch."""
    noop, classify = WORKS["noop"].make_rows(SITE.assets), WORKS["classify"].make_rows(SITE.assets)
    embed = WORKS["embed"].make_rows(SITE.assets)[1]
    roomy, tight = round(ROOMY * full_ms), max(1, round(TIGHT * lone_ms))
    adaptive = "batchPolicy: adaptive\n"
    eager = {work: variant(work, "eager") for work in ("noop", "classify", "embed")}
    learns = {work: variant(work, "adaptive", adaptive) for work in eager}
    crew = f"handlerThreads: {len(os.sched_getaffinity(0))}\n"
    crews = [variant("classify", "crew", crew), variant("classify", "crew-adaptive", adaptive + crew)]
    target = variant("classify", "target", f"{adaptive}latencyTarget: {roomy}\n")
    lost = variant("classify", "lost", f"{adaptive}latencyTarget: {tight}\n")
    hooks = HANDLERS / "ts_classify.py"
    in_turn = variant("classify", "hooks", handler=hooks)
    ahead = variant("classify", "ahead", "preprocessThreads: 1\n", hooks)
    return [
        *(Case(row.title, row, [eager["noop"], learns["noop"]], 1) for row in (noop[0], noop[2])),
        Case(classify[0].title, classify[0], [eager["classify"], learns["classify"], lost], 4),
        Case(f"{classify[0].title}, a thread per core", classify[0], crews, 4),
        Case(embed.title, embed, [eager["embed"], learns["embed"]], 3),
        Case(
            f"EfficientNet-Lite0, {SHARE * capacity:.1f} requests/s",
            classify[0],
            [eager["classify"], target],
            5,
            SHARE * capacity,
            roomy,
        ),
        Case(f"{classify[0].title}, with hooks", classify[0], [in_turn, ahead], 4),
        Case(f"{classify[1].title}, with hooks", classify[1], [in_turn, ahead], 6),  # some 15 answers/s
    ]


def start(variants: Sequence[Variant], stack: ExitStack) -> Server:
    """One server with every variant, each packed anew; ``stack`` stops it."""
    venv = mlserve_peer.install(SITE)
    run_dir, (inference, management, metrics) = SITE.run_dir("mlserve", variants[0].job), free_ports(3)
    archiver = [venv / "bin" / "mlserve", "archive"]
    stores = {one.job.name: pack(SITE, one.job, archiver, one.settings) for one in variants}
    command = [venv / "bin" / "mlserve", "start", "--host", "127.0.0.1", "--inference-port", inference]
    command += ["--management-port", management, "--metrics-port", metrics, "--models"]
    command += [f"{name}={store / f'{name}.mar'}" for name, store in stores.items()]
    env = environ(venv, MLSERVE_GRPC_ENABLED="false")
    server = launch("mlserve", inference, command, run_dir, env, metrics=metrics)
    stack.callback(server.stop)
    return server


def request(case: Case, one: Variant) -> wrk.Request:
    """What a variant of a row is asked."""
    return plain(f"/predictions/{one.job.name}", case.row.payloads)


def calibrate() -> tuple[float, float, float]:
    """EfficientNet's answers a second with eager; milliseconds of a lone request (the least of 9) and a full batch."""
    row, one = WORKS["classify"].make_rows(SITE.assets)[0], variant("classify", "eager")
    case = Case(row.title, row, [one], 0)
    with ExitStack() as stack:
        server, asked = start([one], stack), request(case, one)
        server.wait_ready(lambda: ask(server.url, asked)[0] == 200)
        wrk.run(server.url, asked, connections=row.connections, seconds=3, checked=True)
        server.settle()
        moments = [time.perf_counter()]
        for _ in range(9):
            ask(server.url, asked)
            moments.append(time.perf_counter())
        lone = min(after - before for before, after in itertools.pairwise(moments))
        rate = wrk.run(server.url, asked, connections=row.connections, seconds=4).rate
    return rate, lone * 1000, BATCH / rate * 1000


def warm_up(server: Server, every: Sequence[Case], seconds: float) -> None:
    """Load every variant, each answer compared: TorchScript compiles at the first batches of each size."""
    warm = set()
    for case in every:
        for one in case.variants:
            asked = request(case, one)
            if (asked, case.row.connections) in warm:
                continue
            warm.add((asked, case.row.connections))
            server.wait_ready(lambda asked=asked: ask(server.url, asked)[0] == 200)
            took = seconds if case.row.slow else 1
            if case.row.slow and "adaptive" in one.settings:
                took = max(took, LEARNS)
            wrk.run(server.url, asked, connections=case.row.connections, seconds=took, checked=True)
            server.settle()


def measure_one(server: Server, case: Case, one: Variant, seconds: float) -> None:
    """One window: answers per second, or the 99th percentile in ms at a fixed rate."""
    asked, used, (before, _) = request(case, one), server.cpu_seconds(), batches(server)
    if case.rate:
        found = open_loop(server, asked, case.rate, seconds)
        figure, answers, errors = found["latencyMs"]["p99"], found["requests"], sum(found["errors"].values())
        if errors:
            raise RuntimeError(f"{case.title}, {one.name}: {errors} of {answers} failed")
    elif case.row.slow:
        times = SITE.scratch / "times.txt"
        figure = wrk.run_whole(server.url, asked, connections=case.row.connections, seconds=seconds, times=times)
    else:
        figure = wrk.run(server.url, asked, connections=case.row.connections, seconds=seconds).rate
    case.figures.setdefault(one.name, []).append(figure)
    server.settle()
    case.cpu.setdefault(one.name, []).append((server.cpu_seconds() - used) * 1000 / (batches(server)[0] - before))
    print(f"  {case.title:60} {one.name:13} {figure:10,.1f} {'ms p99' if case.rate else '/s'}", flush=True)


def open_loop(server: Server, asked: wrk.Request, rate: float, seconds: float) -> dict[str, Any]:
    """What ``mlserve bench`` says of ``rate`` requests a second, at moments that do not wait for answers."""
    command = [mlserve_peer.install(SITE) / "bin" / "mlserve", "bench", server.url + asked.path]
    command += ["--input", asked.bodies[0], "--rate", f"{rate:.2f}", "--duration", f"{seconds}s", "--warmup", "1s"]
    command += ["--content-type", asked.content_type, "--quiet", "--json", "-"]
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"mlserve bench failed:\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)["runs"][0]
    return found


def rounds(server: Server, every: Sequence[Case], count: int, scale: float) -> None:
    """The rows in turn, ``count`` times; the variants between the first, whose order is turned every round."""
    for number in range(count):
        print(f"round {number + 1}", flush=True)
        for case in every:
            first, *others = case.variants
            for one in (first, *others[:: 1 if number % 2 == 0 else -1], first):
                measure_one(server, case, one, max(1, round(case.seconds * scale)))


def ratios(figures: dict[str, list[float]], first: str, other: str) -> tuple[list[float], list[float]]:
    """Round by round: ``other`` over the mean of the first variant's two, and the second of those over the first."""
    pairs = list(zip(figures[first][::2], figures[first][1::2], strict=True))
    return (
        [value / statistics.fmean(pair) for value, pair in zip(figures[other], pairs, strict=True)],
        [after / before for before, after in pairs],
    )


def table(every: Sequence[Case]) -> str:
    """Markdown: a line for each variant but the first of each row."""
    lines = ["| load | of | is | ratio | the first again | CPU per answer, ratio |", "| --- | --- |" + " ---: |" * 4]
    for case in every:
        first, *others = case.variants
        unit = f"p99 ms, target {case.target:.0f}" if case.rate else "answers/s"
        for other in others:
            ratio, noise = ratios(case.figures, first.name, other.name)
            cpu, _ = ratios(case.cpu, first.name, other.name)
            values = [statistics.median(case.figures[one.name]) for one in (other, first)]
            shown = " / ".join(report.rate(value) for value in values)
            lines.append(
                f"| {case.title} | {other.name} / {first.name} | {shown} {unit} | {report.spread(ratio, 3)} "
                f"| {report.spread(noise, 3)} | {report.spread(cpu, 3)} |"
            )
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench batching", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round: to see that it works")
    parser.add_argument(
        "--scale", type=report.amount, default=1.0, help="times the length of a window: for slow machines"
    )
    parser.add_argument("--rounds", type=report.count, help="rounds (default 2)")
    parser.add_argument("--only", help="rows whose title contains this")
    parser.add_argument("--update-readme", action="store_true", help="put the table into benchmarks/README.md")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print, write."""
    arguments = parse(argv)
    count = arguments.rounds or (1 if arguments.quick else 2)
    started, busy = time.monotonic(), report.foreign_load()
    SITE.scratch.mkdir(exist_ok=True)
    with (SITE.scratch / ".lock").open("w") as lock, ExitStack() as stack:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the same folders as the comparison's
        prepare(SITE)
        capacity, lone, full = calibrate()
        print(
            f"EfficientNet: {capacity:.1f} answers/s, lone request {lone:.0f} ms, full batch {full:.0f} ms", flush=True
        )
        every = [case for case in cases(capacity, lone, full) if (arguments.only or "") in case.title]
        models = {one.job.name: one for case in every for one in case.variants}
        server = start(list(models.values()), stack)
        warm_up(server, every, 2 * arguments.scale)
        rounds(server, every, count, arguments.scale)
    command = report.command("batching", sys.argv[1:] if argv is None else argv)
    text = (
        f"{table(every)}\n\n`{command}` at `{report.commit()}`: medians over {count} "
        f"interleaved rounds, least and most in brackets. One worker a model, batch size {BATCH}, delay 5 ms. A lone "
        f"request takes EfficientNet {lone:.0f} ms, a full batch {full:.0f} ms; the target that cannot be met is "
        f"{TIGHT:g} of the former.\n\nMachine: {report.machine()}.\nUsed by other programs before the start: "
        f"{busy:.0f} % of the cores.\n"
    )
    result = [{"title": case.title, "figures": case.figures, "cpu_ms": case.cpu} for case in every]
    target = report.write({"machine": report.machine(), "commit": report.commit(), "rows": result}, RESULTS, "batching")
    target.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{time.monotonic() - started:.0f} s; written to {target}")
    if arguments.update_readme:
        report.update_readme(HERE / "README.md", text, "batching")


if __name__ == "__main__":
    main()
