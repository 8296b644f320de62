"""How long a model's batches take, by size: real workers, no server. All workers of a setup compute at the same time,
because they share processors, caches and memory; so do the batches of a worker that computes several at once.

Not every handler can do that: with globals of its own, or state in its model, it answers wrongly instead of failing. So
what several batches at once answer is compared with what one answered.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from mlserve.cli.agreement import compare
from mlserve.cli.trial import Trial
from mlserve.cli.tune_search import Curve, Point, Setup
from mlserve.engine.local import LocalEngine, available_cpus, load_options
from mlserve.errors import ServeError, WorkerStartError

if TYPE_CHECKING:
    from mlserve.core.model import ModelSpec
    from mlserve.settings import Settings

SLICE = 1.0  # seconds for one size
FEWEST, MOST = 5, 200  # batches of one size
TOO_SLOW = 1.5  # times the target: larger batches are of no use
TOLERANCE = 0.01  # of answers' numbers, absolute or relative: batches of other sizes are summed in another order

Say = Callable[[str], object]
Inputs = Sequence[tuple[bytes, str]]


class Refused(ServeError):
    """The model does not answer the inputs, or not as it did before."""


class Answers:
    """What each input was answered, by its number. ``vary`` tells that a model answers the same input differently even
    when it computes one batch at a time."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}
        self.vary = False

    def note(self, seen: Sequence[tuple[int, bytes]], at_once: int) -> None:
        """Compare (input, answer) with those before. Raises :class:`Refused` for other answers of several batches."""
        for number, body in seen:
            found = compare(self._known.setdefault(number, body), body, TOLERANCE)
            if found.same or self.vary:
                continue
            if at_once > 1:
                raise Refused(f"the answer to input {number + 1} {found.text()} from that of one batch at a time")
            self.vary = True

    @property
    def useless(self) -> str:
        """Why they would not show that batches got each other's answers; empty where they would."""
        if self.vary:
            return "answers vary anyway: nobody could tell whether they are right"
        if len(set(self._known.values())) < 2:
            return (
                "all inputs have one answer: batches that got each other's would not be seen; give inputs that differ"
            )
        return ""


async def measure(
    settings: Settings, spec: ModelSpec, setups: Sequence[Setup], inputs: Inputs, limits: Limits, say: Say
) -> tuple[list[Curve], Inputs]:
    """A curve for each of the setups, and the inputs, which are made up where none are given.

    Raises :class:`Refused`, and :class:`mlserve.errors.WorkerStartError`.
    """
    curves: list[Curve] = []
    answers = Answers()
    for setup in setups:
        if curves and time.monotonic() > limits.until:
            say(f"{setup}: not measured, the time is over")
            continue
        if setup.at_once > 1 and not limits.unchecked and answers.useless:
            say(f"{setup}: not measured, as {answers.useless}")
            continue
        gpus = gpus_of(settings)
        engine = LocalEngine(gpu_ids=gpus, cpus=available_cpus(), options=load_options(settings))
        try:
            async with AsyncExitStack() as stack:
                one = replace(spec, threads_per_worker=setup.threads, batch_size=limits.sizes[-1])
                one = replace(one, handler_threads=setup.at_once)
                say(f"{setup}: loading")
                workers = [await stack.enter_async_context(Trial(engine, one)) for _ in range(setup.workers)]
                inputs = inputs or made_up(workers[0])
                curves.append(await _curve(setup, workers, inputs, limits, answers, say))
        except (WorkerStartError, Refused) as error:
            if setup.at_once == 1 or not curves:
                raise
            say(f"{setup}: not for this model: {error.message}")
        finally:
            await engine.close()
    return curves, inputs


class Limits:
    """Batch sizes to measure, smallest first; when to stop; above how many seconds a batch is of no use. ``unchecked``:
    measure several batches at once also where answers cannot be compared."""

    def __init__(self, largest: int, slowest: float, until: float, *, unchecked: bool = False) -> None:
        self.sizes = sorted({largest, *(2**power for power in range(largest.bit_length()) if 2**power <= largest)})
        self.slowest = slowest
        self.until = until
        self.unchecked = unchecked


def gpus_of(settings: Settings) -> tuple[int, ...]:
    """The GPUs that a server with these settings would use."""
    from mlserve.engine.local import discover_gpus

    ids = settings.gpu.ids if settings.gpu.ids is not None else tuple(discover_gpus())
    return tuple(ids[: settings.gpu.limit] if settings.gpu.limit >= 0 else ids)


def made_up(worker: Trial) -> Inputs:
    """A request of zeros for a model that says what its inputs are. Raises :class:`Refused` for others."""
    from mlserve.cli.auto_config import zeros

    described = worker.signature.get("inputs") or []
    known = described and all(one.get("shape") is not None and one.get("datatype") for one in described)
    body = zeros(described, 1) if known else None
    if body is None:
        raise Refused("the model does not say what its inputs are: give some with --input FILE or -d JSON")
    return [(body, "application/json")]


async def _curve(
    setup: Setup, workers: Sequence[Trial], inputs: Inputs, limits: Limits, answers: Answers, say: Say
) -> Curve:
    lanes = [worker for worker in workers for _ in range(setup.at_once)]
    points: list[Point] = []
    for size in limits.sizes:
        if points and time.monotonic() > limits.until:
            say(f"{setup}: batches above {points[-1].size} are not measured, the time is over")
            break
        found = await asyncio.gather(*(_repeat(worker, size, inputs, at) for at, worker in enumerate(lanes)))
        for _, seen in found:
            answers.note(seen, setup.at_once)
        point = point_of(size, [seconds for times, _ in found for seconds in times])
        say(f"{setup}: batch of {size}: {point.median * 1000:.1f} ms, slow ones {point.slow * 1000:.1f} ms")
        points.append(point)
        if point.median > TOO_SLOW * limits.slowest:
            break
    return Curve(setup, tuple(points))


def point_of(size: int, times: Sequence[float]) -> Point:
    """A point of the curve from the seconds of several batches."""
    ordered = sorted(times)
    return Point(size, statistics.median(ordered), ordered[-1 - len(ordered) // 20])


async def _repeat(
    worker: Trial, size: int, inputs: Inputs, shift: int
) -> tuple[list[float], Sequence[tuple[int, bytes]]]:
    """Seconds of batches of one size, and (input, answer) of the last ones; each has other inputs, as far as there are
    any. The first batch is not counted."""
    times: list[float] = []
    seen: deque[tuple[int, bytes]] = deque(maxlen=FEWEST * size)
    until, number = time.monotonic() + SLICE, shift
    while len(times) <= FEWEST or (time.monotonic() < until and len(times) < MOST):
        asked = [(number + index) % len(inputs) for index in range(size)]
        number += size
        answers, seconds = await worker.send([inputs[each] for each in asked])
        wrong = next((answer.error for answer in answers if answer.error), "")
        if wrong:
            raise Refused(f"a batch of {size} was not answered: {wrong}")
        seen += [(each, answer.body) for each, answer in zip(asked, answers, strict=True)]
        times.append(seconds)
    return times[1:], seen
