"""Served throughput of every runtime beside a bare loop of the same runtime: ``scripts/bench runtimes [--quick]``.

One case after the other. Its server and its loop are both up, idle while the other is measured, and take turns within
each round, the order turned round every round; the share of a round is served / loop. Both count whole batches: the
loop does anyway, and of the answers only those between two pauses are counted (see ``wrk.steady_rate``).
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import report, runtimes_models, servers, wrk
from benchmarks.runtimes_loop import Loop
from benchmarks.runtimes_models import BATCH, Case

HERE = Path(__file__).resolve().parent
SCRATCH, RESULTS = HERE / ".scratch" / "runtimes", HERE / "results"
CONNECTIONS = 2 * BATCH  # one batch computes, the next waits at the worker
TOLERANCE = 1e-3  # of logits up to 13, and of unit vectors: batches of other sizes are summed in another order
CHECKED = 6 * BATCH
TARGET = 0.95


@dataclass
class Result:
    """What the rounds of one case gave: rows per second; CPU ms per row, of all processes; the mean batch."""

    case: Case
    runtime: str
    served: list[float] = field(default_factory=list)
    loop: list[float] = field(default_factory=list)
    batch: float = 0.0
    cpu_served: float = 0.0
    cpu_loop: float = 0.0

    @property
    def shares(self) -> list[float]:
        """served / loop of each round."""
        return [ours / bare for ours, bare in zip(self.served, self.loop, strict=True)]


def start(case: Case, stack: ExitStack) -> servers.Server:
    """An mlserve with the case's model alone, ready; ``stack`` stops it. ``ports["metrics"]`` is one of its ports."""
    run_dir = SCRATCH / "run" / case.name
    (run_dir / "tmp").mkdir(parents=True, exist_ok=True)
    inference, management, metrics = servers.free_ports(3)
    command = [
        Path(sys.executable).parent / "mlserve",
        "start",
        "--models",
        f"model={case.path}",
        "--host",
        "127.0.0.1",
    ]
    command += ["--inference-port", inference, "--management-port", management, "--metrics-port", metrics]
    env = {**os.environ, "MLSERVE_GRPC_ENABLED": "false", "TORCHINDUCTOR_CACHE_DIR": str(SCRATCH / "inductor")}
    server = servers.launch("mlserve", inference, command, run_dir, env, metrics=metrics)
    stack.callback(server.stop)
    url, body = f"{server.url}/predictions/model", case.body.read_bytes()
    server.wait_ready(lambda: servers.post(url, body, {"Content-Type": case.content_type})[0] == 200, seconds=600)
    return server


def worker_of(server: servers.Server) -> psutil.Process:
    """The process that computes: the largest of the server's children."""
    return max(psutil.Process(server.process.pid).children(recursive=True), key=lambda one: one.memory_info().rss)


def check(server: servers.Server, case: Case, expected: dict[str, Any]) -> None:
    """Ask for ``CHECKED`` answers, ``CONNECTIONS`` at a time, and compare every number with the in-process answer.

    Raises WrongAnswerError. This is the warm-up as well: TorchScript compiles at the first batches of each size.
    """
    url, body, headers = f"{server.url}/predictions/model", case.body.read_bytes(), {"Content-Type": case.content_type}

    def ask(_: int) -> None:
        status, reply = servers.post(url, body, headers)
        if status != 200:
            raise wrk.WrongAnswerError(f"{case.name} answers {status}: {reply[:300]!r}")
        answer = json.loads(reply)
        outputs = answer if isinstance(answer, dict) else {"": answer}
        if list(outputs) != list(expected):
            raise wrk.WrongAnswerError(f"{case.name} has the outputs {list(outputs)}, not {list(expected)}")
        for name, value in outputs.items():
            found, wanted = np.asarray(value), np.asarray(expected[name])
            if found.shape != wanted.shape or np.abs(found - wanted).max() > TOLERANCE:
                raise wrk.WrongAnswerError(f"{case.name}: the served {name} differs from the loop's")

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(ask, range(CHECKED)))


def load(server: servers.Server, case: Case, seconds: float) -> float:
    """Answers per second under ``CONNECTIONS`` kept-alive connections. Raises WrongAnswerError on any but a 200."""
    request = wrk.Request("/predictions/model", (case.body,), case.content_type, "")
    times = SCRATCH / "times.txt"
    rate = wrk.run_whole(server.url, request, connections=CONNECTIONS, seconds=seconds, times=times)
    # wrk leaves up to two batches behind, which would be computed beside the loop: this answer comes after them.
    servers.post(server.url + request.path, case.body.read_bytes(), {"Content-Type": case.content_type})
    return rate


def cpu_seconds(root: int) -> float:
    """User and system time of a process and its descendants so far."""
    process = psutil.Process(root)
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def measure(case: Case, rounds: int, seconds: float) -> Result:
    """Start the server and the loop of one case, compare their answers, run the rounds, stop both."""
    with ExitStack() as stack:
        server = start(case, stack)
        loop = Loop(case, worker_of(server).environ(), SCRATCH / "run" / case.name / "loop.log")
        stack.callback(loop.stop)
        check(server, case, loop.expected)
        loop.rate(seconds / 2)
        result, before, rows = Result(case, loop.name), servers.batches(server), 0.0
        cpu = cpu_seconds(server.process.pid), cpu_seconds(loop.process.pid)
        for number in range(rounds):
            for served in (True, False) if number % 2 == 0 else (False, True):
                if served:
                    result.served.append(load(server, case, seconds))
                else:
                    result.loop.append(loop.rate(seconds))
                    rows += loop.rows
            print(
                f"round {number + 1}  {case.name:26} served {result.served[-1]:8.1f}/s  loop {result.loop[-1]:8.1f}/s  "
                f"share {result.shares[-1]:.3f}",
                flush=True,
            )
        requests, count = (now - then for now, then in zip(servers.batches(server), before, strict=True))
        result.batch = requests / count
        result.cpu_served = 1000 * (cpu_seconds(server.process.pid) - cpu[0]) / requests
        result.cpu_loop = 1000 * (cpu_seconds(loop.process.pid) - cpu[1]) / rows
        print(
            f"         {case.name:26} {loop.name}: mean batch {result.batch:.2f}, CPU ms a row "
            f"{result.cpu_loop:.2f} in the loop, {result.cpu_served:.2f} served",
            flush=True,
        )
        return result


def table(results: Sequence[Result]) -> str:
    """The Markdown table: a line per case."""
    lines = [
        "| model | runtime | loop, rows/s | served, rows/s | batch | CPU ms/row: loop, served | served / loop |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in results:
        loop, served = np.median(one.loop), np.median(one.served)
        lines.append(
            f"| {one.case.title} | {one.case.runtime} ({one.runtime}) | {loop:,.1f} | {served:,.1f} "
            f"| {one.batch:.2f} | {one.cpu_loop:.2f}, {one.cpu_served:.2f} | {report.spread(one.shares, 3)} |"
        )
    return "\n".join(lines)


def markdown(results: Sequence[Result], command: str, rounds: int, busy: float) -> str:
    """The whole section: the table, how it was measured and where."""
    below = [one.case.name for one in results if np.median(one.shares) < TARGET]
    return (
        f"{table(results)}\n\n"
        f"`{command}` at `{report.commit()}`: medians over {rounds} interleaved rounds, of the share with the least "
        f"and the most. Batch size {BATCH}, one worker, {CONNECTIONS} connections. Before that, {CHECKED} answers "
        f"were compared with the loop's, number by number. Below {TARGET}: {', '.join(below) or 'none'}.\n\n"
        f"Machine: {report.machine()}.\n"
        f"Used by other programs before the start: {busy:.0f} % of the cores.\n"
    )


def write(results: Sequence[Result], text: str) -> Path:
    """``runtimes.json`` and ``runtimes.md``; returns the latter."""
    RESULTS.mkdir(exist_ok=True)
    rows = [
        {"model": one.case.model, "runtime": one.case.runtime, "version": one.runtime, "served": one.served,
         "loop": one.loop, "shares": one.shares, "mean_batch": one.batch,
         "cpu_ms_loop": one.cpu_loop, "cpu_ms_served": one.cpu_served}
        for one in results
    ]  # fmt: skip
    data = {"machine": report.machine(), "commit": report.commit(), "rows": rows}
    (RESULTS / "runtimes.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    target = RESULTS / "runtimes.md"
    target.write_text(text, encoding="utf-8")
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(prog="scripts/bench runtimes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds of 2 s each")
    parser.add_argument("--rounds", type=int, help="rounds (default 4)")
    parser.add_argument("--seconds", type=int, help="length of a measurement (default 4)")
    parser.add_argument("--only", nargs="+", metavar="RUNTIME", help="runtimes, or MODEL-RUNTIME, to measure alone")
    parser.add_argument("--update-readme", action="store_true", help="put the table into benchmarks/README.md")
    arguments = parser.parse_args(argv)
    rounds = arguments.rounds or (2 if arguments.quick else 4)
    seconds = arguments.seconds or (2 if arguments.quick else 4)
    started, busy = time.monotonic(), report.foreign_load()
    wrk.find_wrk()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    cases = [*runtimes_models.efficientnet(SCRATCH), *runtimes_models.minilm(SCRATCH)]
    if arguments.only:
        known = {name for case in cases for name in (case.runtime, case.name)}
        if unknown := set(arguments.only) - known:
            parser.error(f"--only: {', '.join(sorted(unknown))} none of {', '.join(sorted(known))}")
        cases = [case for case in cases if {case.runtime, case.name} & set(arguments.only)]
    results = [measure(case, rounds, seconds) for case in cases]
    command = " ".join(["scripts/bench runtimes", *(argv if argv is not None else sys.argv[1:])])
    text = markdown(results, command.replace(" --update-readme", ""), rounds, busy)
    print(f"\n{text}\n{time.monotonic() - started:.0f} s; written to {write(results, text)}")
    if arguments.update_readme:
        report.update_readme(HERE / "README.md", text, "runtimes")


if __name__ == "__main__":
    main()
