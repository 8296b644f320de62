"""The runs of ``mlserve bench``: each input is tried once, then every level is measured, with a view of it."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlserve.cli.bench_report import heading, table
from mlserve.cli.bench_view import View
from mlserve.cli.client import NotReachable, Refused
from mlserve.cli.loops import on_interrupt, run_loop
from mlserve.load.client import ask_once
from mlserve.load.result import CLOSED, LoadResult
from mlserve.load.runners import closed_loop, open_loop
from mlserve.load.slots import REFUSED, UNTRUSTED
from mlserve.load.target import Target

TRIED = 50  # inputs that are tried before the first row
UNREACHABLE = (REFUSED, "connection failed", "no connection in time")


@dataclass(frozen=True)
class Plan:
    """What is run: ``seconds``, or ``count`` requests if that is above 0, at each of the ``levels``, after ``warmup``
    seconds of the same."""

    mode: str
    levels: Sequence[float]
    seconds: float
    warmup: float
    count: int
    arrivals: str
    connections: int
    allow_errors: bool = False


def measure(target: Target, plan: Plan, *, live: bool) -> list[LoadResult]:
    """A result for each level that was begun; the last is marked if Ctrl-C ended it.

    Raises :class:`NotReachable` and :class:`Refused` where it makes no sense to begin.
    """
    results: list[LoadResult] = []
    run_loop(_try_inputs(target, plan.allow_errors), fast=True)
    gc.collect()
    gc.freeze()  # what is loaded by now is not looked through again while answers are timed
    view = View(live)
    try:
        run_loop(_levels(target, plan, view, results), fast=True)
    finally:
        view.close()
        gc.unfreeze()
    return results


async def _try_inputs(target: Target, allow_errors: bool) -> None:
    for number in range(min(len(target.payloads), TRIED)):
        kind, detail = await ask_once(target, number)
        told = f"{kind} ({detail})" if detail else kind
        if kind in UNREACHABLE:
            raise NotReachable(f"no server at {target.address}: {told}; start one with 'mlserve start'")
        if kind == UNTRUSTED:
            other = "" if target.is_grpc else ", or skip the check with --insecure"
            raise Refused(
                f"{target.address} is not to be trusted: {detail}; name its certificate, or who signed it, with "
                f"--cacert FILE{other}"
            )
        if kind and not allow_errors:
            which = f"input {number + 1}" if len(target.payloads) > 1 else "the first request"
            raise Refused(f"{which} fails before any load: {told}; --allow-errors measures all the same")


async def _levels(target: Target, plan: Plan, view: View, results: list[LoadResult]) -> None:
    stop = asyncio.Event()

    title = heading(target, plan.mode, plan.arrivals, plan.warmup)

    def watch(result: LoadResult) -> None:
        if view.due():
            view.show(*table([*results, result], shutil.get_terminal_size().columns), title)

    times: dict[str, Any] = {"warmup": plan.warmup, "count": plan.count, "watch": watch, "stop": stop}
    with on_interrupt(stop.set):
        for level in plan.levels:
            if plan.mode == CLOSED:
                result = await closed_loop(target, int(level), plan.seconds, **times)
            else:
                result = await open_loop(
                    target, level, plan.seconds, kind=plan.arrivals, connections=plan.connections, **times
                )
            results.append(result)
            if result.interrupted:
                return
