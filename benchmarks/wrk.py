"""Run wrk against one URL: a checked burst (every answer compared) or a timed run (wrk alone, nothing in its way)."""

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.steal import Stolen

SCRIPT = Path(__file__).parent / "lua" / "report.lua"


@dataclass(frozen=True)
class Request:
    """POSTs: ``path`` on the inference port, files of the bodies, sent in turn, and a text in every right answer."""

    path: str
    bodies: tuple[Path, ...]
    content_type: str
    expect: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Load:
    """What one timed run gave. Latencies in milliseconds, as wrk's one thread saw them; ``rate``: good answers."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    errors: int = 0
    cpu_ms: float = 0  # user and system time of the server's processes per answer, as the caller measures it
    stolen: float = 0  # share of the cores' time that the host took meanwhile


class WrongAnswerError(RuntimeError):
    """A server answered something else than it should, or not at all: its speed means nothing."""


def find_wrk() -> str:
    """The wrk binary; raises RuntimeError with the install command if there is none."""
    path = shutil.which("wrk")
    if path is None:
        raise RuntimeError("wrk was not found; on Debian: apt-get install -y wrk")
    return path


def run(
    base_url: str,
    request: Request,
    *,
    connections: int,
    seconds: float,
    checked: bool = False,
    times: Path | None = None,
) -> Load:
    """Load ``base_url`` for ``seconds`` (whole seconds, at least 1) over kept-alive connections, one wrk thread.

    Statuses but 200, socket errors and timeouts are counted as ``errors``. ``checked`` compares every answer and raises
    WrongAnswerError on any that is missing, failed or without the expected text; RuntimeError if nothing was answered
    in the time or wrk itself failed. ``times`` is a file that gets the moment of each answer, not in a checked run.
    """
    env = {**os.environ, "BENCH_BODIES": "\n".join(map(str, request.bodies))}
    env["BENCH_HEADERS"] = "\n".join(
        f"{name}: {value}" for name, value in (("Content-Type", request.content_type), *request.headers)
    )
    if checked:
        env["BENCH_EXPECT"] = request.expect
    elif times is not None:
        env["BENCH_TIMES"] = str(times)
    command = [find_wrk(), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    command += ["-s", str(SCRIPT), base_url + request.path]
    stolen = Stolen()
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=seconds + 60, check=False)
    share = stolen.share()
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"wrk failed on {base_url}{request.path}:\n{done.stdout}{done.stderr}")
    report = json.loads(lines[-1].removeprefix("REPORT "))
    failed = report["bad_status"] + report["socket_errors"] + report["timeouts"]
    good = report["requests"] - report["bad_status"]
    if good <= 0:
        raise RuntimeError(f"{base_url}{request.path} answered nothing within {seconds:.0f} s: {report}")
    if checked and (failed or report["wrong"] or report["checked"] < report["requests"]):
        raise WrongAnswerError(f"{base_url}{request.path}: {report}")
    return Load(good, good / report["seconds"], report["p50_ms"], report["p99_ms"], failed, stolen=share)


def run_whole(base_url: str, request: Request, *, connections: int, seconds: float, times: Path) -> float:
    """Answers per second, counted in whole batches: see ``steady_rate``. ``times`` is a file to use.

    Raises WrongAnswerError on any answer but a 200.
    """
    load = run(base_url, request, connections=connections, seconds=seconds, times=times)
    if load.errors:
        raise WrongAnswerError(f"{base_url}{request.path}: {load}")
    return steady_rate([float(line) for line in times.read_text().split()])


def steady_rate(times: Sequence[float]) -> float:
    """Answers per second between two pauses, the longest in the first and in the last quarter of the answers.

    Answers come a batch at a time. Over the whole run a rate would lose the batch that the end cuts off, and the time
    until the first: 3 % of 5 s at 30 answers/s, which no loop has. Raises RuntimeError for fewer than 32 answers.
    """
    if len(times) < 32:
        raise RuntimeError(f"{len(times)} answers are too few to tell a rate: give more time")
    quarter = len(times) // 4
    gaps = [after - before for before, after in itertools.pairwise(times)]
    first = max(range(quarter), key=gaps.__getitem__)
    last = max(range(len(gaps) - quarter, len(gaps)), key=gaps.__getitem__)
    return (last - first) / (times[last] - times[first])
