"""``mlserve predict``: send one request to a model, or the same one many times with a summary of the latencies."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mlserve.cli.client import Answer, Refused, path_of
from mlserve.cli.reaching import Server, with_server
from mlserve.cli.tables import show_table

_PHASE = re.compile(r"\s*([A-Za-z_-]+)\s*;\s*dur\s*=\s*([0-9.]+)")
_STDIN = "-"


@with_server("inference")
def predict(
    server: Server,
    model: Annotated[str, typer.Argument(help="Name of the model.", show_default=False)],
    file: Annotated[
        str, typer.Option("-T", "--file", help="Send this file; - is standard input.", show_default=False)
    ] = "",
    data: Annotated[str, typer.Option("-d", "--data", help="Send this JSON text.", show_default=False)] = "",
    version: Annotated[
        str, typer.Option("--version", "-V", help="Version; default: the default version.", show_default=False)
    ] = "",
    content_type: Annotated[
        str,
        typer.Option(help="Content type; default: JSON for --data, for a file by its name.", show_default=False),
    ] = "",
    repeat: Annotated[int, typer.Option(min=1, help="Send it so often, one after the other.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.001, help="Give up on an answer after so many seconds.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print answer, status and latencies as JSON.")] = False,
) -> None:
    """Send a request to a model and print the answer."""
    body, found_type = read_input(file, data)
    headers = {"x-mlserve-timing": "1", "x-request-timeout": f"{min(timeout, 86400.0):g}"}
    if content_type or found_type:
        headers["Content-Type"] = content_type or found_type
    seconds: list[float] = []
    phases: list[dict[str, float]] = []
    # A little longer than the server, whose answer tells more than a closed connection does.
    with server.client(timeout + 2.0) as client:
        path = path_of("predictions", model, version)
        for _ in range(repeat):
            started = time.perf_counter()
            answer = client.request("POST", path, body=body, headers=headers)
            seconds.append(time.perf_counter() - started)
            if answer.status >= 400:
                raise Refused(answer.error_line())
            phases.append(server_phases(answer.headers.get("server-timing", "")))
    summary = summarise(seconds, phases)
    if as_json:
        typer.echo(json.dumps(_document(answer, summary), indent=2, ensure_ascii=False))
        return
    _print_body(answer)
    if repeat > 1:
        _print_summary(summary)


def read_input(file: str, data: str) -> tuple[bytes, str]:
    """The body to send and its content type, "" where none follows. One of the two must be given, not both."""
    if bool(file) == bool(data):
        raise typer.BadParameter("give the input either with -T FILE or with -d JSON")
    if data:
        try:
            json.loads(data)
        except ValueError as error:
            raise typer.BadParameter(f"the text of --data is not JSON: {error}; use -T for other input") from None
        return data.encode(), "application/json"
    if file == _STDIN:
        return sys.stdin.buffer.read(), ""
    import mimetypes

    try:
        return Path(file).read_bytes(), mimetypes.guess_type(file)[0] or ""
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror or error}") from None


def server_phases(header: str) -> dict[str, float]:
    """Durations in seconds out of a ``Server-Timing`` header; entries without a duration are left out."""
    return {name: float(value) / 1000 for name, value in _PHASE.findall(header)}


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the ``ordered`` values do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summarise(seconds: Sequence[float], phases: Sequence[Mapping[str, float]] = ()) -> dict[str, Any]:
    """Counts and milliseconds: minimum, median, 99th percentile, and the same of each phase that the server told."""
    rows: dict[str, Sequence[float]] = {"total": seconds}
    for name in phases[0] if phases else ():
        rows[name] = [row[name] for row in phases if name in row]
    milliseconds = {}
    for name, values in rows.items():
        ordered = sorted(values)
        milliseconds[name] = {
            key: round(quantile(ordered, share) * 1000, 3)
            for key, share in (("min", 0), ("median", 0.5), ("p99", 0.99))
        }
    return {"requests": len(seconds), "milliseconds": milliseconds}


def _document(answer: Answer, summary: dict[str, Any]) -> dict[str, Any]:
    body: Any = answer.body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError):  # an answer may be text; then it is shown as one
        body = json.loads(answer.body)
    return {
        "status": answer.status,
        "contentType": answer.headers.get("content-type", ""),
        "requestId": answer.headers.get("x-request-id", ""),
        "answer": body,
        **summary,
    }


def _print_body(answer: Answer) -> None:
    """As it came, so that an image or a tensor can be piped on; with a newline after text on a terminal or not."""
    out = sys.stdout.buffer
    out.write(answer.body)
    try:
        text = answer.body.decode()
    except UnicodeDecodeError:
        text = ""
    if text and not text.endswith("\n"):
        out.write(b"\n")
    out.flush()


def _print_summary(summary: dict[str, Any]) -> None:
    rows = [
        (name, *(f"{values[key]:.3f}" for key in ("min", "median", "p99")))
        for name, values in summary["milliseconds"].items()
    ]
    typer.echo("")
    show_table((f"{summary['requests']} REQUESTS, MS", "MIN", "MEDIAN", "P99"), rows)
