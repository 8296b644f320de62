"""What ``mlserve bench`` shows: rows of a table, the JSON document, and whether limits were kept."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlserve import __version__
from mlserve.load.histogram import Histogram
from mlserve.load.result import OPEN, QUANTILES, LoadResult
from mlserve.load.target import Target
from mlserve.load.units import duration_text

WIDE = {False: 112, True: 138}  # characters that a table with all columns needs, by whether answers come in pieces
_ROOMY = {False: ("P99.9",), True: ()}  # further columns of a narrow table, by whether it has one for the first byte


@dataclass(frozen=True)
class Limits:
    """What a run must keep, for CI; None is no limit. Quantile -> seconds, and requests per second."""

    latency: tuple[tuple[str, float], ...] = ()
    least_rate: float | None = None

    def broken(self, result: LoadResult) -> list[str]:
        """A line for each limit that ``result`` does not keep; without a good answer none is kept."""
        found, where = [], level_name(result)
        if not result.latency.count and (self.latency or self.least_rate):
            return [f"{where}: no good answer"]
        for name, most in self.latency:
            value = result.quantile(QUANTILES[name])
            if not value <= most:
                found.append(f"{where}: {name} is {duration_text(value)}, more than {duration_text(most)}")
        if self.least_rate is not None and not result.rate >= self.least_rate:
            found.append(f"{where}: {result.rate:,.1f} requests/s, less than {self.least_rate:,g}")
        return found


def level_name(result: LoadResult) -> str:
    """``32 connections`` or ``200 requests/s``."""
    if result.mode == OPEN:
        return f"{result.level:,g} requests/s"
    return f"{result.level:,.0f} connection{'s' if result.level != 1 else ''}"


def table(results: Sequence[LoadResult], width: int) -> tuple[list[str], list[list[str]]]:
    """Headers and a row of cells for each result; in a narrow terminal (``width`` in characters) the columns that can
    be missed are left to the JSON. Time to the first byte is shown if answers came in pieces."""
    streamed = any(result.streamed for result in results)
    wide = width >= WIDE[streamed]
    shares = {name.upper(): share for name, share in QUANTILES.items()} | {"MAX": 1.0}
    if not wide:
        shares = {name: share for name, share in shares.items() if name in ("P50", "P99", "MAX", *_ROOMY[streamed])}
    first = {"1ST B P50" if wide else "1ST B": 0.5, **({"P99": 0.99} if wide else {})} if streamed else {}
    level, abbreviated = ("OFFERED/S", "OFF/S") if results[0].mode == OPEN else ("CONNECTIONS", "CONNS")
    long = (level, "ANSWERS/S", *shares, *first, "ERRORS", "CLIENT CPU")
    short = (abbreviated, "ANS/S", *shares, *first, "ERRORS", "CPU")
    rows = [
        [
            f"{result.level:,g}",
            f"{result.rate:,.0f}" if result.rate >= 100 else f"{result.rate:.1f}",
            *_cells(result.latency, tuple(shares.values())),
            *_cells(result.first_byte, tuple(first.values())),
            f"{result.error_count:,}",
            f"{result.cpu_share:.0%}",
        ]
        for result in results
    ]
    return list(long if wide else short), rows


def _cells(times: Histogram, shares: Sequence[float]) -> list[str]:
    """Quantiles, and a dash for one that so few answers do not have: p99.9 of 200 would be their maximum."""
    return [
        duration_text(value if share == 1 or round(times.count * (1 - share), 6) >= 1 else math.nan)
        for share, value in zip(shares, times.quantiles(shares), strict=True)
    ]


def heading(target: Target, mode: str, arrivals: str, warmup: float) -> str:
    """What is measured and how, in one line: the figures mean nothing without it."""
    place = f"{target.address} {target.path}" if target.is_grpc else f"{target.method} {target.address}{target.path}"
    if mode == OPEN:
        how = f"open loop, {arrivals} arrivals, latency from the moment a request was meant to be sent"
    else:
        how = "closed loop: a connection sends when it has its answer; not corrected for coordinated omission"
    inputs = f", {len(target.payloads)} inputs in turn" if len(target.payloads) > 1 else ""
    uncounted = f"; {duration_text(warmup)} of warm-up before each row is not counted" if warmup else ""
    return f"{place}{inputs}\n{how}{uncounted}"


def notes(results: Sequence[LoadResult]) -> list[str]:
    """Errors by kind with what the first of each said, and doubts about the figures."""
    lines = []
    for result in results:
        where = level_name(result)
        for kind, count in sorted(result.errors.items(), key=lambda item: -item[1]):
            example = result.examples.get(kind, "")
            lines.append(f"{where}: {count:,} of {result.requests:,}: {kind}" + (f" ({example})" if example else ""))
        lines += [f"{where}: warning: {text}" for text in result.warnings()]
    return lines


def document(target: Target, results: Sequence[LoadResult], broken: Sequence[str]) -> dict[str, Any]:
    """Everything as JSON can hold it."""
    return {
        "mlserve": __version__,
        "machine": platform.machine(),
        "target": {"address": target.address, "path": target.path, "method": target.method},
        "inputs": [{"bytes": len(payload.body), "contentType": payload.content_type} for payload in target.payloads],
        "timeout": target.timeout,
        "runs": [result.to_dict() for result in results],
        "broken": list(broken),
    }


def curve(results: Sequence[LoadResult]) -> dict[str, list[float]]:
    """Level, rate, p50 and p99 (milliseconds) of the rows that have an answer: what a plot draws."""
    good = sorted((result for result in results if result.latency.count), key=lambda result: result.level)
    halves = [result.latency.quantiles([0.5, 0.99]) for result in good]
    return {
        "level": [result.level for result in good],
        "rate": [result.rate for result in good],
        "p50": [pair[0] * 1000 for pair in halves],
        "p99": [pair[1] * 1000 for pair in halves],
    }
