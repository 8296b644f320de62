"""``mlserve bench``: put load on a model or an address and tell throughput and latencies."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mlserve.cli.bench_input import STDOUT, Asked, check_writable, target_of
from mlserve.cli.bench_plot import check_plot, draw
from mlserve.cli.bench_report import Limits, curve, document, heading, notes, table
from mlserve.cli.bench_run import Plan, measure
from mlserve.cli.ending import cause
from mlserve.cli.exits import EXIT_FAILED, EXIT_INTERRUPTED
from mlserve.cli.reaching import Server, with_server
from mlserve.cli.tables import show_table
from mlserve.errors import SettingError
from mlserve.load.arrivals import HIGHEST_RATE, KINDS, POISSON
from mlserve.load.result import CLOSED, OPEN, LoadResult
from mlserve.load.runners import MOST_CONNECTIONS
from mlserve.load.target import PROTOCOLS, Target
from mlserve.load.units import numbers_of, seconds_of

CONCURRENCY = "1,8,32"
NO_END = 86400.0  # seconds; with --requests alone their number ends a row
UNBOUND = 1000  # characters in a line of a file or a pipe

EXAMPLES = """Put load on a model of a running server, or on any address, and tell throughput and latencies.

Examples:

  mlserve bench echo -d '{"text": "hello"}'

  mlserve bench cats -i a.jpg -i b.jpg -c 1,8,32,128 --plot cats.svg

  mlserve bench cats -i a.jpg --rate 50,100,200 -t 30s --max-p99 50ms

  mlserve bench http://127.0.0.1:8000/ask -i in.json --expect out.json

  mlserve bench grpc://127.0.0.1:7070 --model cats -i a.jpg

Exit codes: 0 done, 1 errors or a limit that was not kept, 2 wrong usage, 3 no server, 130 interrupted.
"""


def _option(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, show_default=False)


TargetName = Annotated[str, typer.Argument(help="Name of a model, or an address.", metavar="MODEL|URL")]
Model = Annotated[str, _option("--model", "-m", help="Model of the server whose address was given.")]
Version = Annotated[str, _option("--version", "-V", help="Version of the model; default: the default version.")]
Protocol = Annotated[str, _option("--protocol", help=f"How a model is asked: {', '.join(PROTOCOLS)}.")]
Inputs = Annotated[list[str], _option("--input", "-i", help="File to send; several take turns.")]
Data = Annotated[list[str], _option("--data", "-d", help="JSON text to send; several take turns.")]
Expect = Annotated[list[str], _option("--expect", help="File with the right answer: one, or one for each input.")]
Header = Annotated[list[str], _option("--header", "-H", help="'Name: value', as often as needed.")]
ContentType = Annotated[str, _option("--content-type", help="Instead of the one that follows from the file's name.")]
Method = Annotated[str, _option("--method", "-X", help="Default: POST with an input or a model, else GET.")]
Key = Annotated[str, _option("--input-key", help="gRPC: entry of `input` that holds the file; default: data.")]
Concurrency = Annotated[str, _option("--concurrency", "-c", help="Closed loop: connections; default: 1,8,32.")]
Rate = Annotated[str, _option("--rate", "-r", help="Open loop: requests per second, like 100,200.")]
Arrivals = Annotated[str, _option("--arrivals", help=f"Of an open loop: {' or '.join(KINDS)}; default: {POISSON}.")]
Connections = Annotated[
    int | None,
    typer.Option(min=1, help=f"Most connections of an open loop, further requests wait; default: {MOST_CONNECTIONS}."),
]
Duration = Annotated[str, _option("--duration", "-t", help="Of each row; default: 10s, or no end with --requests.")]
Requests = Annotated[int, typer.Option("--requests", "-n", min=0, help="End a row after so many requests; 0: none.")]
Warmup = Annotated[str, typer.Option(help="Before each row, not counted.")]
Timeout = Annotated[str, typer.Option(help="For an answer, from the sending of its request.")]
MaxP50 = Annotated[str, _option("--max-p50", help="Fail if p50 is more, like 20ms.")]
MaxP99 = Annotated[str, _option("--max-p99", help="Fail if p99 is more, like 50ms.")]
MinRate = Annotated[float, typer.Option(min=0, help="Fail if answers per second are fewer; 0: no limit.")]
AllowErrors = Annotated[bool, typer.Option("--allow-errors", help="Errors are counted, and exit with 0 all the same.")]
JsonFile = Annotated[str, _option("--json", help="Write everything measured to this file; - is standard output.")]
Plot = Annotated[str, _option("--plot", help="Draw to this .png or .svg (needs matplotlib).")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No table while it runs.")]


@with_server("inference")
def bench(  # noqa: D103  # its help is EXAMPLES
    server: Server,
    target: TargetName,
    model: Model = "",
    version: Version = "",
    protocol: Protocol = "",
    inputs: Inputs = [],  # noqa: B006  # typer reads it, nobody changes it
    data: Data = [],  # noqa: B006
    expect: Expect = [],  # noqa: B006
    header: Header = [],  # noqa: B006
    content_type: ContentType = "",
    method: Method = "",
    input_key: Key = "",
    concurrency: Concurrency = "",
    rate: Rate = "",
    arrivals: Arrivals = "",
    connections: Connections = None,
    duration: Duration = "",
    requests: Requests = 0,
    warmup: Warmup = "1s",
    timeout: Timeout = "30s",
    max_p50: MaxP50 = "",
    max_p99: MaxP99 = "",
    min_rate: MinRate = 0.0,
    allow_errors: AllowErrors = False,
    json_file: JsonFile = "",
    plot: Plot = "",
    quiet: Quiet = False,
) -> None:
    limits = _limits({"p50": max_p50, "p99": max_p99}, min_rate)
    plan = _plan(concurrency, rate, arrivals, connections, (duration, requests, warmup), allow_errors)
    fields = (protocol, method, inputs, data, expect, header, content_type, input_key)
    asked = Asked(target, server.url, model, version, *fields, _positive(timeout, "--timeout"))
    if plot:
        check_plot(plot)
    for option, file in (("--json", json_file), ("--plot", plot)):
        check_writable(option, file)
    goal = target_of(asked, server.access)
    results = measure(goal, plan, live=not quiet)
    broken = [line for result in results for line in limits.broken(result)]
    _tell(goal, plan, results, json_file)
    if json_file:
        _write_json(json_file, document(goal, results, broken))
    if plot:
        _plot(plot, goal, plan, results)
    raise typer.Exit(_ending(plan, results, broken))


bench.__doc__ = EXAMPLES


def _plan(
    concurrency: str,
    rate: str,
    arrivals: str,
    connections: int | None,
    times: tuple[str, int, str],
    allow_errors: bool,
) -> Plan:
    if concurrency and rate:
        raise SettingError("--concurrency is a closed loop and --rate an open one; give one of them")
    for option, given in (("--arrivals", arrivals), ("--connections", connections)):
        if given and not rate:
            raise SettingError(f"{option} is for an open loop: give --rate, or leave it out")
    if arrivals and arrivals not in KINDS:
        raise SettingError(f"--arrivals: {arrivals!r} is neither {' nor '.join(KINDS)}")
    duration, count, warmup = times
    levels = (
        numbers_of(rate, "--rate", whole=False)
        if rate
        else numbers_of(concurrency or CONCURRENCY, "--concurrency", whole=True)
    )
    if rate and max(levels) > HIGHEST_RATE:
        raise SettingError(f"--rate: {max(levels):,.0f} is more than {HIGHEST_RATE:,.0f}")
    return Plan(
        mode=OPEN if rate else CLOSED,
        levels=levels,
        seconds=_positive(duration, "--duration") if duration else (NO_END if count else 10.0),
        warmup=seconds_of(warmup, "--warmup"),
        count=count,
        arrivals=arrivals or POISSON,
        connections=connections or MOST_CONNECTIONS,
        allow_errors=allow_errors,
    )


def _limits(latency: dict[str, str], least_rate: float) -> Limits:
    most = tuple((name, _positive(text, f"--max-{name}")) for name, text in latency.items() if text)
    return Limits(most, least_rate or None)


def _positive(text: str, option: str) -> float:
    seconds = seconds_of(text, option)
    if seconds <= 0:
        raise SettingError(f"{option}: {text!r} is to be above 0")
    return seconds


def _tell(target: Target, plan: Plan, results: Sequence[LoadResult], json_file: str) -> None:
    """The table on standard output, unless the JSON is to be there."""
    if json_file == STDOUT:
        return
    typer.echo(heading(target, plan.mode, plan.arrivals, plan.warmup))
    show_table(*table(results, shutil.get_terminal_size().columns if sys.stdout.isatty() else UNBOUND))
    for line in notes(results):
        typer.echo(line)


def _write_json(file: str, content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    if file == STDOUT:
        typer.echo(text, nl=False)
        return
    Path(file).write_text(text, encoding="utf-8")


def _plot(file: str, target: Target, plan: Plan, results: Sequence[LoadResult]) -> None:
    points = curve(results)
    if not points["level"]:
        typer.echo(f"{file} is not drawn: there was no good answer", err=True)
        return
    level = "offered requests per second" if plan.mode == OPEN else "connections"
    how = f"open loop, {plan.arrivals} arrivals" if plan.mode == OPEN else "closed loop"
    draw(file, points, level=level, title=f"{target.address}{target.path} ({how})")


def _ending(plan: Plan, results: Sequence[LoadResult], broken: Sequence[str]) -> int:
    """Say what went wrong; the exit code."""
    for line in broken:
        typer.echo(f"mlserve: error: {line}", err=True)
    if any(result.interrupted for result in results):
        typer.echo(f"mlserve: ended by {cause()}; the last row holds what was measured until then", err=True)
        return EXIT_INTERRUPTED
    errors = sum(result.error_count for result in results)
    if errors and not plan.allow_errors:
        typer.echo(f"mlserve: error: {errors:,} requests had no good answer; see above", err=True)
        return EXIT_FAILED
    return EXIT_FAILED if broken else 0
