"""The figures that mlserve is to reach, each from the results of the comparison: reached, not, or not measured."""

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import peers, report, steal

Results = dict[str, Any]
OURS = ("mlserve", "mlserve-pure")
Verdict = tuple[str, bool] | None


def table(results: Results) -> str:
    """A line per figure."""
    lines = ["| work | at least | measured | reached |", "| --- | --- | --- | --- |"]
    for work, wanted, find in TARGETS:
        verdict = find(results)
        measured, reached = (
            ("–", "not measured") if verdict is None else (verdict[0], "yes" if verdict[1] else "**no**")
        )
        lines.append(f"| {work} | {wanted} | {measured} | {reached} |")
    return "\n".join(lines)


def row_of(results: Results, work: str, start: str) -> dict[str, Any] | None:
    """The row of a work whose title starts so, if mlserve was measured there."""
    rows = results.get(work, {}).get("rows", [])
    return next((row for row in rows if row["title"].startswith(start) and row["loads"].get("mlserve")), None)


def over(row: dict[str, Any], peer: str, name: str = "rate", ours: str = "mlserve") -> float | None:
    """The median over rounds of mlserve's figure as a ratio to a peer's."""
    mine, theirs = row["loads"].get(ours), row["loads"].get(peer)
    return statistics.median(report.ratios(mine, theirs, name)) if mine and theirs else None


def others(row: dict[str, Any]) -> list[str]:
    """The peers that a row has figures of."""
    return [name for name in row["loads"] if name not in OURS]


def noop(results: Results) -> Verdict:
    """1.5 x mosec, 1.8 x Triton, 7 x TorchServe at 32 connections. The compiled build counts, the pure one is told."""
    row = row_of(results, "noop", "no-op, 32 ")
    if row is None:
        return None
    wanted = {"mosec": 1.5, "triton": 1.8, "torchserve": 7}
    found, pure = ({name: over(row, name, ours=ours) for name in wanted} for ours in OURS)
    if not any(found.values()):
        return None
    text = _factors(found) + (f" (pure Python: {_factors(pure)})" if any(pure.values()) else "")
    return text, all((value or 0) >= wanted[name] for name, value in found.items())


def _factors(found: dict[str, float | None]) -> str:
    return ", ".join(f"{value:.2f}x {peers.peer(name).TITLE}" for name, value in found.items() if value)


def many(results: Results) -> Verdict:
    """512 connections: at least 0.8 of the rate at 32, without an error."""
    few, row = row_of(results, "noop", "no-op, 32 "), row_of(results, "noop", "no-op, 512 ")
    if few is None or row is None:
        return None
    share = statistics.median(report.ratios(row["loads"]["mlserve"], few["loads"]["mlserve"], "rate"))
    errors = sum(int(load["errors"]) for load in row["loads"]["mlserve"])
    return f"{share:.2f}, {errors} errors", share >= 0.8 and not errors


def lone(results: Results) -> Verdict:
    """A lone request: the median at most 1/20 of every peer that waits, p99 at most 1 ms."""
    row = row_of(results, "noop", "no-op, 1 ")
    waiting = [name for name in others(row) if peers.peer(name).WAITS] if row else []
    if row is None or not waiting:
        return None
    worst = max((over(row, name, "p50_ms") or 0, name) for name in waiting)
    p50, p99 = (report.median(row["loads"]["mlserve"], name) for name in ("p50_ms", "p99_ms"))
    text = f"median {p50:.3f} ms, 1/{1 / worst[0]:.0f} of {peers.peer(worst[1]).TITLE}'s; p99 {p99:.2f} ms"
    return text, worst[0] <= 1 / 20 and p99 <= 1


def best(work: str, start: str, factor: float, loop: float = 0) -> Callable[[Results], Verdict]:
    """At least ``factor`` times every peer's rate, and a share ``loop`` of the in-process loop's."""

    def find(results: Results) -> Verdict:
        row = row_of(results, work, start)
        if row is None or not others(row) or (loop and not row["loop"]):
            return None
        low, name = min((over(row, name) or 0, name) for name in others(row))
        text, reached = f"{low:.2f}x {peers.peer(name).TITLE}", low >= factor
        if loop:
            pairs = zip(row["loads"]["mlserve"], row["loop"], strict=False)
            share = statistics.median(load["rate"] / own for load, own in pairs)
            text, reached = f"{share:.3f} of the loop, {text}", reached and share >= loop
        return text, reached

    return find


def figure(work: str, name: str, most: float) -> Callable[[Results], Verdict]:
    """A ratio that the work itself computed, at most ``most``."""

    def find(results: Results) -> Verdict:
        value = results.get(work, {}).get("figures", {}).get(name)
        return None if value is None else (f"{value:.3f}", value <= most)

    return find


def starts(results: Results) -> Verdict:
    """Start to first answer, of TorchServe's: no-op at most 1/5, torch model at most 1/2."""
    found = results.get("start", {}).get("figures", {})
    noop_share, torch_share = found.get("start noop"), found.get("start classify")
    if noop_share is None or torch_share is None:
        return None
    return f"1/{1 / noop_share:.1f}, 1/{1 / torch_share:.1f}", noop_share <= 1 / 5 and torch_share <= 1 / 2


def steady(results: Results) -> Verdict:
    """Memory growth below 2 %, p99 flat."""
    result = results.get("steady")
    if result is None:
        return None
    growth, drift = result["figures"]["memory growth"], result["figures"]["p99 drift"]
    minutes = result["seconds_each"] * len(result["minutes"]) / 60
    text = f"{minutes:.0f} minutes: memory {growth:+.1%}, p99 {drift:+.0%}"
    text += f"; stolen {steal.shown([one.get('stolen') for one in result['minutes']])}"
    return text, growth < 0.02 and drift < 0.1 and round(minutes) >= 10


TARGETS: list[tuple[str, str, Callable[[Results], Verdict]]] = [
    ("no-op, 32 connections, batch 8", "1.5x mosec, 1.8x Triton, 7x TorchServe", noop),
    ("no-op, 512 connections", "0.8 of its own 32-connection figure; no error", many),
    ("lone request, delay 5 ms", "median <= 1/20 of every peer that waits; p99 <= 1 ms", lone),
    ("echo 1 MiB", "1.5x the best peer", best("echo", "echo of 1 MiB", 1.5)),
    (
        "EfficientNet, one worker, both cores",
        ">= 0.97 of the in-process loop; above every peer",
        best("classify", "EfficientNet-Lite0 on a JPEG, 16", 1, 0.97),
    ),
    (
        "MiniLM mixed lengths",
        ">= 0.95 of an in-process loop that sorts by length; above every peer",
        best("embed", "MiniLM on texts of mixed length, 32", 1, 0.95),
    ),
    ("start to first answer (no-op / torch model)", "<= 1/5 / <= 1/2 of TorchServe", starts),
    ("scale 1 -> 2 READY (torch model)", "<= 1/4 of TorchServe", figure("start", "scale", 1 / 4)),
    ("memory of the frontend", "<= 1/4 of TorchServe's JVM", figure("start", "frontend memory", 1 / 4)),
    ("10 minutes steady", "memory growth < 2 %, p99 flat (within 10 %)", steady),
]
