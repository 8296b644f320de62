"""Served throughput of every runtime beside a bare loop of the same runtime: ``scripts/bench runtimes [--quick]``.

One case after the other. Its loop, its server with the loop's settings and its server with those that we recommend for
the runtime are all up, idle while another is measured, and take turns within each round, the order turned round every
round; the share of a round is served / loop. All count whole batches: the loop does anyway, and of the answers only
those between two pauses are counted (see ``wrk.steady_rate``).
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import report, runtimes_models, servers, wrk
from benchmarks.runtimes_loop import Loop
from benchmarks.runtimes_models import BATCH, Case
from benchmarks.runtimes_report import Result, Series, markdown, write
from benchmarks.steal import Stolen

HERE = Path(__file__).resolve().parent
SCRATCH = HERE / ".scratch" / "runtimes"
CONNECTIONS = 2 * BATCH  # one batch computes, the next waits at the worker
TOLERANCE = 1e-3  # of logits up to 13, and of unit vectors: batches of other sizes are summed in another order
CHECKED = 6 * BATCH


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


class Contender:
    """A server or the loop, while it is measured."""

    def __init__(self, rate: Callable[[float], float], root: int, counted: Callable[[], tuple[float, float]]) -> None:
        self.rate, self.series = rate, Series()
        self._root, self._counted = root, counted
        self._before = cpu_seconds(root), counted()

    def turn(self, seconds: float) -> None:
        """One measurement."""
        self.series.rates.append(self.rate(seconds))

    def end(self) -> Series:
        """What all turns gave."""
        cpu, (rows, batches) = self._before
        done, count = (now - then for now, then in zip(self._counted(), (rows, batches), strict=True))
        self.series.cpu, self.series.batch = 1000 * (cpu_seconds(self._root) - cpu) / done, done / count
        return self.series


def measure(case: Case, rounds: int, seconds: float) -> Result:
    """Start the servers and the loop of one case, compare their answers, run the rounds, stop all."""
    with ExitStack() as stack:
        up = {"served": start(case, stack)}
        if case.recommended:
            up["recommended"] = start(runtimes_models.twin(case), stack)
        loop = Loop(case, worker_of(up["served"]).environ(), SCRATCH / "run" / case.name / "loop.log")
        stack.callback(loop.stop)
        for server in up.values():
            check(server, case, loop.expected)
        loop.rate(seconds / 2)
        contenders = {"loop": Contender(loop.rate, loop.process.pid, lambda: (loop.total, loop.total / BATCH))}
        for name, server in up.items():
            contenders[name] = Contender(
                partial(load, server, case), server.process.pid, partial(servers.batches, server)
            )
        result = Result(case, loop.name)
        for number in range(rounds):
            stolen = Stolen()
            for name in list(contenders) if number % 2 == 0 else reversed(contenders):
                contenders[name].turn(seconds)
            result.stolen.append(stolen.share())
            rates = "  ".join(f"{name} {one.series.rates[-1]:8.1f}/s" for name, one in contenders.items())
            print(f"round {number + 1}  {case.name:26} {rates}", flush=True)
        series = {name: one.end() for name, one in contenders.items()}
        result.loop, result.served, result.recommended = series["loop"], series["served"], series.get("recommended")
        for name, one in series.items():
            share = report.spread(one.shares(result.loop), 3)
            print(
                f"  {name:12} {share} of the loop, mean batch {one.batch:.2f}, CPU ms a row {one.cpu:.2f}", flush=True
            )
        return result


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(prog="scripts/bench runtimes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds of 2 s each")
    parser.add_argument("--rounds", type=report.count, help="rounds (default 4)")
    parser.add_argument(
        "--seconds", type=report.amount, help="length of a measurement (default 4); against noise many short rounds"
    )
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
    command = report.command("runtimes", sys.argv[1:] if argv is None else argv)
    text = markdown(results, command, rounds, seconds, busy)
    print(f"\n{text}\n{time.monotonic() - started:.0f} s; written to {write(results, text)}")
    if arguments.update_readme:
        report.update_readme(HERE / "README.md", text, "runtimes")


if __name__ == "__main__":
    main()
