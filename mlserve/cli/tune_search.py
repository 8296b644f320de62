"""Which settings meet a latency target with the most answers per second: predicted from measured batches.

With a batch of b that takes c(b) seconds, and w workers, two loads are predicted. With w*b clients that each wait for
their answer, every one is in the batch that is being computed: its latency is c(b), and the worker idles while answers
travel. With twice as many, the next batch is full when one ends: latency 2*c(b), and no pause. More clients only wait
longer. ``p50`` is predicted from the median of the batches, all higher quantiles from the slowest ones. A worker that
computes k batches at once (``handlerThreads``) counts as k.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlserve.errors import SettingError
from mlserve.load.result import QUANTILES
from mlserve.load.units import duration_text, seconds_of

TRAVEL = 0.0003  # seconds of a request outside of the worker, with Python clients on the same machine
MAYBE = 1.15  # times the target: predicted to be so much slower, a setting is tried all the same
HEADROOM = 0.95  # of the target: for batch sizes that were not measured themselves
MIXED = 1.5  # times as large as the smallest must the largest input be
_SLO = re.compile(r"(p[\d.]+)\s*=\s*(\d+(?:\.\d*)?\s*(?:ms|s))")


@dataclass(frozen=True)
class Slo:
    """``share`` of the answers come within ``seconds``."""

    name: str
    seconds: float

    @property
    def share(self) -> float:
        """The quantile as a number below 1."""
        return QUANTILES[self.name]

    def __str__(self) -> str:
        return f"{self.name}={duration_text(self.seconds).replace(' ', '')}"


def slos_of(texts: Sequence[str]) -> tuple[Slo, ...]:
    """``p99=50ms``, several with commas between or as several texts. Raises :class:`SettingError`."""
    found: dict[str, Slo] = {}
    for text in (part.strip() for given in texts for part in given.split(",")):
        match = _SLO.fullmatch(text)
        if match is None or match[1] not in QUANTILES:
            raise SettingError(
                f"--slo: {text!r}; write it like p99=50ms, with one of {', '.join(QUANTILES)} and ms or s"
            )
        seconds = seconds_of(match[2].replace(" ", ""), "--slo")
        if seconds <= 0 or match[1] in found:
            raise SettingError(f"--slo: {text!r} is " + ("0" if seconds <= 0 else f"a second target of {match[1]}"))
        found[match[1]] = Slo(match[1], seconds)
    if not found:
        raise SettingError("--slo is missing; write it like --slo p99=50ms")
    return tuple(found.values())


@dataclass(frozen=True)
class Setup:
    """So many workers with so many threads each; 0 threads are the model's own business. ``at_once`` batches are
    computed by one worker at the same time, and its threads are shared out to them."""

    workers: int
    threads: int
    at_once: int = 1

    @property
    def batches(self) -> int:
        """How many batches are computed at the same time, by all workers."""
        return self.workers * self.at_once

    def __str__(self) -> str:
        one = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        one += f", {self.threads} thread{'s' if self.threads > 1 else ''} each" if self.threads else ""
        return one + (f", {self.at_once} batches at once" if self.at_once > 1 else "")


@dataclass(frozen=True)
class Point:
    """Batches of ``size`` in one of the workers while the others do the same, and its other threads, in seconds."""

    size: int
    median: float
    slow: float  # the slowest, of more than 20 all but one in 20

    def time(self, name: str) -> float:
        """What a quantile of latency is predicted from."""
        return self.median if name == "p50" else self.slow


@dataclass(frozen=True)
class Curve:
    """Batches by size, smallest first."""

    setup: Setup
    points: tuple[Point, ...]

    def at(self, size: int) -> Point:
        """A size between two that were measured, on the line between them."""
        for low, high in zip(self.points, self.points[1:], strict=False):
            if low.size <= size <= high.size:
                share = (size - low.size) / (high.size - low.size)
                median = low.median + share * (high.median - low.median)
                return Point(size, median, low.slow + share * (high.slow - low.slow))
        return next(point for point in self.points if point.size == size)


@dataclass(frozen=True)
class Predicted:
    """A setting under a load of ``clients``: answers per second, and the worst of its latencies as a share of what the
    target allows; up to 1 it is met."""

    setup: Setup
    batch_size: int
    clients: int
    rate: float
    strain: float


def setups_of(
    cpus: float, gpus: int, workers: Sequence[int] = (), threads: Sequence[int] = (), at_once: Sequence[int] = ()
) -> list[Setup]:
    """Which numbers of workers, threads and batches at once to measure: all CPUs are shared out, once to one worker and
    once to as many as there are, and by powers of two between; each worker computes one batch by all of its threads,
    and one by each of them. ``workers``, ``threads`` and ``at_once`` are the user's choice instead."""
    available = max(1, int(cpus))
    if not workers:
        most = gpus if gpus else available
        workers = sorted({1, most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})
    found = []
    for count in workers:
        own = threads or [0 if gpus else max(1, available // count)]
        found += [Setup(count, each, many) for each in own for many in at_once or sorted({1, max(1, each)})]
    return found


def predictions(curves: Sequence[Curve], slos: Sequence[Slo]) -> list[Predicted]:
    """Every setting worth a thought, the best first: those that meet the targets by rate, the others by strain."""
    found: dict[tuple[Setup, int, int], Predicted] = {}
    for curve in curves:
        for turns in (1, 2):
            for size in _sizes(curve, slos, turns):
                one = _predicted(curve.setup, curve.at(size), turns, slos)
                found[one.setup, one.batch_size, one.clients] = one
    return sorted(found.values(), key=lambda one: (max(one.strain, 1.0), -one.rate))


def _sizes(curve: Curve, slos: Sequence[Slo], turns: int) -> Iterator[int]:
    """The measured sizes, and the largest between them that is predicted to meet the targets."""
    yield from (point.size for point in curve.points)
    fits = 0
    for size in range(curve.points[0].size, curve.points[-1].size + 1):
        if _predicted(curve.setup, curve.at(size), turns, slos).strain <= HEADROOM:
            fits = size
    if fits:
        yield fits


def _predicted(setup: Setup, point: Point, turns: int, slos: Sequence[Slo]) -> Predicted:
    each = setup.batches * point.size
    rate = each / (point.median + (TRAVEL if turns == 1 else 0.0))
    strain = max((turns * point.time(slo.name) + TRAVEL) / slo.seconds for slo in slos)
    return Predicted(setup, point.size, turns * each, rate, strain)


@dataclass(frozen=True)
class Setting:
    """What is written to model-config.yaml. Times are in milliseconds; a target of 0 is none."""

    setup: Setup
    batch_size: int
    delay_ms: float
    policy: str = "eager"
    target_ms: float = 0.0

    def __str__(self) -> str:
        return f"{self.setup}: batch size {self.batch_size}, {self.policy}, delay {self.delay_ms:g} ms"

    def config(self) -> dict[str, object]:
        """The keys of model-config.yaml, also those that say what is usual: the server's settings may say otherwise."""
        target = {"latencyTarget": _number(self.target_ms)} if self.target_ms else {}
        return {
            "batchSize": self.batch_size,
            "maxBatchDelay": _number(self.delay_ms),
            "batchPolicy": self.policy,
            **target,
            "minWorkers": self.setup.workers,
            "maxWorkers": self.setup.workers,
            "threadsPerWorker": self.setup.threads,
            "handlerThreads": self.setup.at_once,
        }


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 3)


@dataclass(frozen=True)
class Trial:
    """A setting to verify, at each of these numbers of clients until one meets the targets; ``rate`` is predicted."""

    setting: Setting
    clients: tuple[int, ...]
    rate: float

    def __str__(self) -> str:
        return f"{self.setting}, {clients_text(*self.clients)}"


def clients_text(*counts: float) -> str:
    """``1 client``, ``8 clients``, ``8 or 16 clients``."""
    return f"{' or '.join(f'{count:g}' for count in counts)} client{'s' if counts != (1,) else ''}"


def trials(found: Sequence[Predicted], curves: Sequence[Curve], slos: Sequence[Slo], most: int) -> list[Trial]:
    """The best settings to verify with a real server, at most ``most``.

    If none is predicted to come near the targets, the one that comes nearest is verified, to say so.
    """
    near = [one for one in found if one.strain <= MAYBE]
    levels: dict[tuple[Setup, int], list[Predicted]] = {}
    for one in near or list(found[:1]):
        key = (one.setup, one.batch_size)
        if key in levels or len(levels) < most:
            levels.setdefault(key, []).append(one)
    return [
        Trial(
            Setting(setup, size, delay_of(curves, setup, size, slos)),
            tuple(one.clients for one in same),
            max(one.rate for one in same),
        )
        for (setup, size), same in levels.items()
    ]


def delay_of(curves: Sequence[Curve], setup: Setup, size: int, slos: Sequence[Slo]) -> float:
    """How long a request may wait for others, in milliseconds: what the targets leave beside its batch, at most 100.

    At least 5 % of a batch's time: eager waits 2 % at most, and with less clients that come back together fall apart.
    """
    point = next(curve for curve in curves if curve.setup == setup).at(size)
    left = min(slo.seconds - point.time(slo.name) - TRAVEL for slo in slos)
    return float(min(max(int(left * 1000), math.ceil(point.median * 50)), 100))


def variations(best: Setting, slos: Sequence[Slo], sizes: Sequence[int]) -> list[Setting]:
    """The winner with another policy and with another delay: tried, because nothing that was measured predicts them.

    ``sizes`` are those of the inputs, in bytes: where they differ, a model that pads gains by batches of similar ones.
    """
    if best.batch_size == 1:
        return []
    target = min(slo.seconds for slo in slos) * 1000
    mixed = max(sizes) > MIXED * min(sizes)
    similar = [Setting(best.setup, best.batch_size, best.delay_ms, "bucket")] if mixed else []
    adaptive = Setting(best.setup, best.batch_size, best.delay_ms, "adaptive", target)
    other = Setting(best.setup, best.batch_size, 0.0 if best.delay_ms else 5.0)
    return [*similar, adaptive, other]


def strain_of(quantiles: Mapping[str, float], slos: Sequence[Slo]) -> float:
    """Measured latencies (seconds by quantile) as a share of what the targets allow; NaN counts as infinitely slow."""
    shares = [quantiles[slo.name] / slo.seconds for slo in slos]
    return max(share if share == share else float("inf") for share in shares)
