"""What a load run has measured.

A request belongs to the measured time if it was meant to be sent in it: its latency and its failure count however late
its answer comes, so that a server which stalls at the end does not lose its slowest answers. Throughput counts what was
*answered* in that time.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from mlserve.load.histogram import RELATIVE_ERROR, Histogram

CLOSED, OPEN = "closed", "open"
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
SATURATED = 0.9  # of a core: from here on the client, one thread, is part of what is measured
STARVED = 0.2  # of the time
LATE = 0.005  # seconds; a request that is sent so much later than it was meant shows a client that cannot keep up


@dataclass
class LoadResult:
    """One run at one level.

    ``level`` is the number of connections of a closed loop, the requests per second offered by an open one.
    ``latency`` counts good answers only; an open loop's is measured from the moment a request was *meant* to be sent.
    ``first_byte`` ends with the first byte of the answer's body. ``late`` is how long after its moment an open loop's
    request was really sent. ``cpu_share`` is what the client used of one core, ``wait_share`` the share of the time in
    which it could have run and others had all cores. ``errors`` is kind -> count, ``examples`` what the first of each
    kind said.
    """

    mode: str
    level: float
    seconds: float = 0.0
    requests: int = 0
    answered: int = 0
    received_bytes: int = 0
    streamed: bool = False
    interrupted: bool = False
    cpu_share: float = 0.0
    wait_share: float = 0.0
    connections: int = 0
    latency: Histogram = field(default_factory=Histogram)
    first_byte: Histogram = field(default_factory=Histogram)
    late: Histogram = field(default_factory=Histogram)
    errors: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Good answers per second of the measured time; 0 where there was no time."""
        return self.answered / self.seconds if self.seconds > 0 else 0.0

    @property
    def error_count(self) -> int:
        """Requests that had no good answer."""
        return sum(self.errors.values())

    def quantile(self, share: float) -> float:
        """Latency in seconds that ``share`` of the good answers do not exceed; NaN where there were none."""
        return self.latency.quantile(share)

    def warnings(self) -> list[str]:
        """Why these figures may say more about the client than about the server."""
        found = []
        if self.cpu_share > SATURATED:
            found.append(
                f"the load generator itself took {self.cpu_share:.0%} of a core: the server may be faster than this"
            )
        elif self.cpu_share + self.wait_share > SATURATED or self.wait_share > STARVED:
            found.append(
                f"the load generator waited for a processor {self.wait_share:.0%} of the time: latencies are "
                "partly its own"
            )
        if self.mode == OPEN and self.late.quantile(0.99) > LATE:
            found.append(
                f"1 % of the requests were sent {self.late.quantile(0.99) * 1000:.1f} ms or more after their moment "
                "(all connections busy, or this machine is)"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it; durations in milliseconds, None where there is none."""
        return {
            "mode": self.mode,
            "concurrency" if self.mode == CLOSED else "offeredRate": self.level,
            "latencyFrom": "sending" if self.mode == CLOSED else "intended sending",
            "seconds": round(self.seconds, 3),
            "requests": self.requests,
            "rate": round(self.rate, 2),
            "errors": dict(self.errors),
            "errorExamples": dict(self.examples),
            "latencyMs": _milliseconds(self.latency),
            "firstByteMs": _milliseconds(self.first_byte),
            **({"sentLateMs": _milliseconds(self.late)} if self.mode == OPEN else {}),
            "relativeError": RELATIVE_ERROR,
            "receivedBytes": self.received_bytes,
            "streamed": self.streamed,
            "connections": self.connections,
            "clientCpuShare": round(self.cpu_share, 3),
            "clientWaitShare": round(self.wait_share, 3),
            "interrupted": self.interrupted,
            "warnings": self.warnings(),
        }


def _milliseconds(times: Histogram) -> dict[str, float | None]:
    values = {"min": times.quantile(0), "mean": times.mean}
    values |= {name: times.quantile(share) for name, share in QUANTILES.items()} | {"max": times.quantile(1)}
    return {name: None if math.isnan(value) else round(value * 1000, 4) for name, value in values.items()}


def _waited() -> float:
    """Seconds that this thread was ready to run and had no processor; 0 where the kernel does not tell."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


class Recorder:
    """Collects a run into ``result``. Moments are ``time.perf_counter()``; ``begin`` and ``end`` bound the measured
    time, and ``end`` moves when the run ends before. ``by_number``: the run is one of so many requests, and answers to
    those of the warm-up are none of them."""

    def __init__(self, result: LoadResult, begin: float, end: float, by_number: bool = False) -> None:
        self.result = result
        self._first = begin if by_number else -math.inf
        self.begin = begin
        self.end = end
        self._cpu, self._waited, self._cpu_at = time.process_time(), _waited(), begin
        self._closed = False

    def start_clock(self) -> None:
        """The measured time begins now."""
        self._cpu, self._waited, self._cpu_at = time.process_time(), _waited(), time.perf_counter()

    def answered(self, intended: float, sent: float, first: float, done: float, size: int) -> None:
        """A good answer of ``size`` bytes."""
        result = self.result
        if self.begin <= done <= self.end and intended >= self._first:
            result.answered += 1
        if self.begin <= intended <= self.end:
            result.requests += 1
            result.received_bytes += size
            result.latency.add(done - intended)
            result.first_byte.add(first - intended)
            if result.mode == OPEN:
                result.late.add(sent - intended)

    def failed(self, intended: float, kind: str, detail: str = "") -> None:
        """A request that was meant to be sent at ``intended`` has no good answer."""
        result = self.result
        if self.begin <= intended <= self.end:
            result.requests += 1
            result.errors[kind] = result.errors.get(kind, 0) + 1
            if kind not in result.examples:
                result.examples[kind] = detail

    def stop_clock(self, now: float) -> None:
        """The measured time ends, at its end or before it; later answers still count as latencies."""
        if not self._closed:
            self.progress(now)
            self.end = min(self.end, now)
            self._closed = True

    def progress(self, now: float) -> LoadResult:
        """The result so far."""
        if not self._closed:
            self.result.seconds = max(0.0, min(now, self.end) - self.begin)
            elapsed = now - self._cpu_at
            if elapsed > 0:
                self.result.cpu_share = (time.process_time() - self._cpu) / elapsed
                self.result.wait_share = (_waited() - self._waited) / elapsed
        return self.result
