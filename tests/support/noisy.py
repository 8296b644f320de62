"""A simulated worker on a machine that others use too: what a batch costs depends on the moment and its neighbours."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping
from math import log
from typing import Any

from mlserve.core.job import Batch
from mlserve.core.messages import BatchReport, InferenceResponse
from support.simulation import Cost, Rig


def by_rate(rates: Mapping[int, float], at_once: int = 1) -> Cost:
    """Seconds of a batch of n, of ``at_once`` of them at a time, where together they give ``rates[n]`` answers a
    second; between the sizes given it goes in a straight line over the logarithm of the size."""
    known = sorted(rates)

    def cost(size: int) -> float:
        right = min(max(bisect_right(known, size), 1), len(known) - 1)
        low, high = known[right - 1], known[right]
        share = (log(size) - log(low)) / (log(high) - log(low))
        return at_once * size / (rates[low] + share * (rates[high] - rates[low]))

    return cost


class Steal:
    """Spells in which the host takes ``share`` of the cores, about ``lasting`` seconds long and ``apart`` apart."""

    def __init__(self, rng: random.Random, share: float = 0.4, lasting: float = 2.0, apart: float = 5.0) -> None:
        self._rng, self._share, self._means = rng, share, (apart, lasting)
        self._until, self._stolen = 0.0, True

    def factor(self, now: float) -> float:
        """How many times as long a batch takes that begins ``now``."""
        if not self._until:
            self._until = now
        while self._until <= now:
            self._stolen = not self._stolen
            self._until += self._rng.expovariate(1 / self._means[self._stolen])
        return 1 / (1 - self._share) if self._stolen else 1.0


class Crew:
    """A worker that computes ``handler_threads`` batches at once. A batch takes half of what it would among its like,
    and half of what it would among those that are computed when it begins; ``alone``: the share of it if none is."""

    def __init__(self, rig: NoisyRig, at_once: int, alone: float) -> None:
        self.rig, self.at_once, self.alone = rig, at_once, alone
        self.worker_id = 9000
        self.waiting: list[tuple[Batch, float]] = []
        self.computing: list[Batch] = []

    @property
    def in_flight(self) -> int:
        return len(self.waiting) + len(self.computing)

    def send(self, batch: Batch) -> None:
        self.rig.sizes.append(len(batch))
        self.waiting.append((batch, self.rig.clock.time()))
        self._begin()

    def cancel(self, batch: Batch, index: int) -> None:
        raise AssertionError("nobody cancels here")

    def _begin(self) -> None:
        while self.waiting and len(self.computing) < self.at_once:
            batch, came = self.waiting.pop(0)
            waited = self.rig.clock.time() - came
            took = self.rig.seconds(batch)
            if self.computing:
                each = [self.rig.cost(len(one)) / len(one) for one in (batch, *self.computing)]
                took *= (each[0] + sum(each[1:]) / len(each[1:])) / (2 * each[0])
            elif self.at_once > 1:
                took *= self.alone
            self.computing.append(batch)
            self.rig.clock.call_later(took, self._end, batch, took, waited)

    def _end(self, batch: Batch, took: float, waited: float) -> None:
        self.computing.remove(batch)
        self._begin()
        results = [InferenceResponse(b"") for _ in batch.jobs]
        self.rig.queue.batch_done(self, batch, results, BatchReport(inference=took, waited=waited))


class NoisyRig(Rig):
    """One model with ``workers`` of ``cost``, which jitters by ``jitter`` (standard deviation of its logarithm). Once
    in a thousand batches it is ten times that, and more while ``steal`` says so."""

    def __init__(
        self,
        cost: Cost,
        rng: random.Random,
        *,
        jitter: float = 0.05,
        steal: Steal | None = None,
        workers: int = 1,
        alone: float = 0.7,
        **spec: Any,
    ) -> None:
        super().__init__(cost, 0, **spec)
        self.rng, self.jitter, self.steal = rng, jitter, steal
        for _ in range(workers):
            self.queue.slot_ready(Crew(self, spec.get("handler_threads", 1), alone))

    def seconds(self, batch: Batch) -> float:
        slow = 10.0 if self.rng.random() < 0.001 else 1.0
        stolen = self.steal.factor(self.clock.time()) if self.steal else 1.0
        return self.cost(len(batch)) * self.rng.lognormvariate(0, self.jitter) * slow * stolen
