"""A model's queue with simulated workers and clients: seconds of traffic in milliseconds, the same each time.

The queue and its policy are the real ones; only the clock, the workers and the clients are made up.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mlserve.core.job import Batch, Job
from mlserve.core.messages import BatchReport, InferenceRequest, InferenceResponse, Part
from support.core_fakes import FakeClock, make_queue

Cost = Callable[[int], float]
"""Seconds for a batch of so many requests."""


def linear(each: float, fixed: float) -> Cost:
    return lambda size: each * size + fixed


def jittery(cost: Cost, rng: random.Random, share: float = 0.1, outliers: float = 0.01) -> Cost:
    """``cost`` and up to ``share`` more; now and then a batch takes five times as long."""
    return lambda size: cost(size) * (5.0 if rng.random() < outliers else 1.0 + share * rng.random())


def stepped(each: float, fixed: float, step: int) -> Cost:
    """Batches are padded to a multiple of ``step``."""
    return lambda size: each * step * -(-size // step) + fixed


class SimulatedSlot:
    """A worker that computes one batch after the other."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.worker_id = 9000
        self.batches: deque[tuple[Batch, float]] = deque()

    @property
    def in_flight(self) -> int:
        return len(self.batches)

    def send(self, batch: Batch) -> None:
        self.rig.sizes.append(len(batch))
        self.batches.append((batch, self.rig.clock.time()))
        if len(self.batches) == 1:
            self._begin()

    def cancel(self, batch: Batch, index: int) -> None:
        raise AssertionError("nobody cancels here")

    def _begin(self) -> None:
        batch, came = self.batches[0]
        took = self.rig.seconds(batch)
        self.rig.clock.call_later(took, self._end, took, self.rig.clock.time() - came)

    def _end(self, took: float, waited: float) -> None:
        batch, _ = self.batches.popleft()
        if self.batches:
            self._begin()
        results = [InferenceResponse(b"") for _ in batch.jobs]
        self.rig.queue.batch_done(self, batch, results, BatchReport(inference=took, waited=waited))


@dataclass
class Outcome:
    """What the clients saw, in seconds, and the sizes of the batches that the workers did."""

    latencies: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    drained: float = 0.0  # when the last was answered, for traffic that ends

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def worst(self) -> float:
        return max(self.latencies)

    def in_time(self, limit: float) -> float:
        """The share that was answered within ``limit`` seconds."""
        return sum(latency <= limit for latency in self.latencies) / len(self.latencies)


class Rig:
    """One model with ``workers`` of ``cost``."""

    def __init__(self, cost: Cost, workers: int = 1, **spec: Any) -> None:
        self.cost = cost
        self.clock = FakeClock()
        self.queue = make_queue(self.clock, **{"job_queue_size": 100_000, **spec})
        self.sizes: list[int] = []
        self.done = Outcome()
        self.last = 0.0  # when a client was answered last
        for _ in range(workers):
            self.queue.slot_ready(SimulatedSlot(self))

    def seconds(self, batch: Batch) -> float:
        """How long a worker has ``batch``."""
        return self.cost(len(batch))

    def body(self) -> bytes:
        """What the next request sends."""
        return b""

    def ask(self, then: Callable[[], object] | None = None) -> None:
        def ended(job: Job) -> None:
            self.last = self.clock.time()
            self.done.latencies.append(self.last - job.arrived)
            if then is not None:
                then()

        self.queue.put(InferenceRequest("", [Part("body", self.body())]), ended, lambda job, chunk: None)

    def closed_loop(self, clients: int, seconds: float, back: Callable[[], float] = lambda: 0.0002) -> Outcome:
        """What :meth:`join` and :meth:`observe` say."""
        self.join(clients, back)
        return self.observe(seconds)

    def join(self, clients: int, back: Callable[[], float]) -> None:
        """``clients`` from now on that each ask again ``back()`` seconds after their answer."""

        def again() -> None:
            self.clock.call_later(back(), self.ask, again)

        for _ in range(clients):
            again()

    def observe(self, seconds: float) -> Outcome:
        """What ``seconds`` are like, once the policy has learned and clients have fallen into step."""
        self.clock.advance(seconds / 4)
        begun = len(self.done.latencies), len(self.sizes)
        self.clock.advance(seconds)
        return Outcome(self.done.latencies[begun[0] :], self.sizes[begun[1] :], seconds)

    def arrivals(self, moments: Iterable[float]) -> Outcome:
        """Requests that come at ``moments``, in seconds from now, whatever happens to those before."""
        moments = list(moments)
        begun, sizes = len(self.done.latencies), len(self.sizes)
        for moment in moments:
            self.clock.call_later(moment, self.ask)
        start = self.clock.time()
        while len(self.done.latencies) - begun < len(moments):
            self.clock.advance(1.0)
        last = self.clock.time() - start
        return Outcome(self.done.latencies[begun:], self.sizes[sizes:], last, self.last - start)

    def poisson(self, rate: float, seconds: float, rng: random.Random) -> Outcome:
        """Requests that come at random, ``rate`` a second on average."""
        moments, moment = [], 0.0
        while moment < seconds:
            moment += rng.expovariate(rate)
            moments.append(moment)
        return self.arrivals(moments)
