"""The two ways to put load on a server.

*Closed loop*: each of N connections sends its next request when it has its answer. It shows what a server can do with N
requests under way, and its latencies are those of N patient clients: while the server stalls they send nothing, so a
stall is seen N times at most (coordinated omission).

*Open loop*: requests are sent at moments that were fixed before, whatever the server does, as those of many
independent clients are. Latency counts from such a moment, so requests that had to wait because the server, or all
connections, were busy show their wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from mlserve.load.arrivals import POISSON, arrivals
from mlserve.load.client import open_client
from mlserve.load.result import CLOSED, OPEN, LoadResult, Recorder
from mlserve.load.slots import NOT_SENT, TIMEOUT, Client, Slot, has_answered
from mlserve.load.target import Target
from mlserve.load.timers import Timer
from mlserve.protocols.admission import allow_connections

TICK = 0.05  # seconds between looks at timeouts, the end, and the viewer
RETRY_PAUSE = 0.02  # seconds before a connection of a closed loop that has failed is tried again: no busy loop
MOST_CONNECTIONS = 1000
SENT_AT_ONCE = 64  # requests that are due before answers are looked at again

Watch = Callable[[LoadResult], None]


@dataclass(frozen=True)
class Window:
    """How long: ``warmup`` seconds that are not counted, then ``seconds``, or until ``count`` requests are sent."""

    seconds: float = 10.0
    warmup: float = 0.0
    count: int = 0


async def closed_loop(
    target: Target,
    concurrency: int,
    seconds: float = 10.0,
    *,
    warmup: float = 0.0,
    count: int = 0,
    watch: Watch | None = None,
    stop: asyncio.Event | None = None,
) -> LoadResult:
    """Keep ``concurrency`` requests under way for ``seconds``, or until ``count`` of them have been sent (0: no bound).

    ``watch`` is called with the result so far some times a second; ``stop`` ends the run early. Requests that are under
    way at the end are waited for, at most for the target's timeout. Raises :class:`ServeError` and
    :class:`SettingError` for a target that cannot be opened, never for an answer: those are in ``result.errors``.
    """
    return await _Closed(target, concurrency, Window(seconds, warmup, count), watch, stop).run()


async def open_loop(
    target: Target,
    rate: float,
    seconds: float = 10.0,
    *,
    kind: str = POISSON,
    warmup: float = 0.0,
    count: int = 0,
    connections: int = MOST_CONNECTIONS,
    seed: int = 0,
    watch: Watch | None = None,
    stop: asyncio.Event | None = None,
) -> LoadResult:
    """Send ``rate`` requests per second for ``seconds``, whatever becomes of them; latency counts from the moment each
    was meant to be sent. ``kind`` is ``poisson`` or ``constant``. At most ``connections`` are open: further requests
    wait, and their wait is part of their latency. Those that still wait when the target's timeout has passed since the
    end are errors (``not sent``).

    The rest is as for :func:`closed_loop`.
    """
    window = Window(seconds, warmup, count)
    return await _Open(target, rate, window, watch, stop, kind=kind, connections=connections, seed=seed).run()


class _Run(ABC):
    """What both loops share: the clock of the measured time, timeouts, the viewer, the end."""

    def __init__(
        self, target: Target, result: LoadResult, window: Window, watch: Watch | None, stop: asyncio.Event | None
    ) -> None:
        self.target, self.result, self.window = target, result, window
        self._watch, self._stop = watch, stop
        self.slots: list[Slot] = []
        self.sending = True
        self._number = -1
        self.started = 0  # requests of the measured time that were begun
        self.client: Client
        self.start: float  # the moment of the first request

    async def run(self) -> LoadResult:
        """Send, wait for what is under way, close."""
        self.loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self.client = await open_client(self.target, self.done)
        self.start = perf_counter()
        begin = self.start + self.window.warmup
        self.recorder = Recorder(self.result, begin, begin + self.window.seconds, self.window.count > 0)
        clock = self.loop.call_later(self.window.warmup, self.recorder.start_clock)
        try:
            self.begin()
            await self._until_sent()
            self.recorder.stop_clock(perf_counter())
            if not self.result.interrupted:
                self.send_last()
                self.sending = False
                await self._until_answered()
        finally:
            clock.cancel()
            self.sending = False
            self.finish()
            for slot in self.slots:
                slot.close()
            await self.client.close()
            self.result.connections = len(self.slots)
        return self.result

    @abstractmethod
    def begin(self) -> None:
        """Send the first requests."""

    @abstractmethod
    def done(self, slot: Slot, kind: str, first: float, end: float, size: int, pieces: bool) -> None:
        """An exchange is over."""

    @abstractmethod
    def send_last(self) -> None:
        """The time is over: send what was due within it and is not sent yet."""

    @abstractmethod
    def give_up(self) -> None:
        """Send nothing more: those that are under way end by their timeout at the latest."""

    @abstractmethod
    def finish(self) -> None:
        """The run is over."""

    def outstanding(self) -> bool:
        """Whether answers, or the end of the sending, are still to come."""
        return any(slot.busy for slot in self.slots)

    def next_payload(self) -> int:
        """Payloads take turns."""
        self._number = (self._number + 1) % len(self.target.payloads)
        return self._number

    def may_send(self, moment: float) -> bool:
        """Whether one more request may be sent at ``moment``; counts it."""
        if not self.sending or moment >= self.recorder.end:
            return False
        if moment >= self.recorder.begin and self.window.count:
            if self.started >= self.window.count:
                return False
            self.started += 1
        return True

    def account(self, slot: Slot, kind: str, first: float, end: float, size: int, pieces: bool) -> None:
        """Count the fate of a slot's request."""
        if kind:
            self.recorder.failed(slot.intended, kind, slot.detail)
        else:
            if pieces:
                self.result.streamed = True
            self.recorder.answered(slot.intended, slot.sent, first, end, size)
        if self._all_sent() and not self.outstanding():
            self._over.set()

    def _all_sent(self) -> bool:
        return 0 < self.window.count <= self.started

    async def _until_sent(self) -> None:
        """Until the time is over, or as many requests as were asked for are answered."""
        while (left := self.recorder.end - perf_counter()) > 0:
            if self._stop is not None and self._stop.is_set():
                self.result.interrupted = True
                return
            if self._over.is_set():
                return
            self._look()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._over.wait(), min(left, self._tick()))

    async def _until_answered(self) -> None:
        until = perf_counter() + self.target.timeout
        while self.outstanding():
            if perf_counter() > until:
                self.give_up()
            if self._stop is not None and self._stop.is_set():
                self.result.interrupted = True
                return
            self._look()
            await asyncio.sleep(self._tick() / 5)

    def _tick(self) -> float:
        return min(TICK, self.target.timeout / 4)

    def _look(self) -> None:
        now = perf_counter()
        oldest = now - self.target.timeout
        for slot in self.slots:
            if slot.busy and slot.sent < oldest:
                slot.detail = f"no answer within {self.target.timeout:g} s"
                slot.abort(TIMEOUT)
        self.recorder.progress(now)
        if self._watch is not None:
            self._watch(self.result)


class _Closed(_Run):
    def __init__(
        self, target: Target, concurrency: int, window: Window, watch: Watch | None, stop: asyncio.Event | None
    ) -> None:
        super().__init__(target, LoadResult(CLOSED, concurrency), window, watch, stop)
        self._concurrency = concurrency

    def begin(self) -> None:
        allow_connections(self._concurrency)
        self.slots = [self.client.slot() for _ in range(self._concurrency)]
        for slot in self.slots:
            self._send(slot)

    def done(self, slot: Slot, kind: str, first: float, end: float, size: int, pieces: bool) -> None:
        self.account(slot, kind, first, end, size, pieces)
        if kind and not has_answered(kind):
            self.loop.call_later(RETRY_PAUSE, self._send, slot)
        else:
            self._send(slot)

    def send_last(self) -> None:
        """Nothing is due."""

    def give_up(self) -> None:
        """Nothing waits but in the slots."""

    def finish(self) -> None:
        """There is nothing to close."""

    def _send(self, slot: Slot) -> None:
        now = perf_counter()
        if self.may_send(now):
            slot.intended = now
            slot.send(self.next_payload())


class _Open(_Run):
    def __init__(
        self,
        target: Target,
        rate: float,
        window: Window,
        watch: Watch | None,
        stop: asyncio.Event | None,
        *,
        kind: str,
        connections: int,
        seed: int,
    ) -> None:
        super().__init__(target, LoadResult(OPEN, rate), window, watch, stop)
        self._offsets = arrivals(kind, rate, seed)
        self._connections = connections
        self._idle: list[Slot] = []
        self._waiting: deque[float] = deque()
        self._next = math.inf

    def begin(self) -> None:
        allow_connections(self._connections)
        self._next = self.start + next(self._offsets)
        self._timer = Timer(self._due)
        self._timer.arm(self._next - perf_counter())

    def outstanding(self) -> bool:
        return (self.sending and self._next < math.inf) or bool(self._waiting) or super().outstanding()

    def done(self, slot: Slot, kind: str, first: float, end: float, size: int, pieces: bool) -> None:
        self.account(slot, kind, first, end, size, pieces)
        if self._waiting:
            self._send(slot, self._waiting.popleft())
        else:
            self._idle.append(slot)

    def send_last(self) -> None:
        """Those of the last moments, for which the timer had not fired yet."""
        self._due()

    def give_up(self) -> None:
        """Requests that never got a connection, or that this process was too slow to send, have not been answered:
        leaving them out would flatter the server."""
        for intended in self._waiting:
            self.recorder.failed(intended, NOT_SENT, f"all {self._connections} connections were busy")
        self._waiting.clear()
        while self._next < self.recorder.end and not self._all_sent():
            self.recorder.failed(self._next, NOT_SENT, "the load generator was too slow")
            self._next = self.start + next(self._offsets)

    def finish(self) -> None:
        """Close the timer."""
        self._timer.close()
        if not self.result.interrupted:
            self.give_up()

    def _due(self) -> None:
        """Send what is due, and set the timer for what is next."""
        for _ in range(SENT_AT_ONCE):
            if self._next > perf_counter():
                break
            moment = self._next
            if not self.may_send(moment):
                self._next = math.inf
                return
            self._next = math.inf if self._all_sent() else self.start + next(self._offsets)
            if self._idle:
                self._send(self._idle.pop(), moment)
            elif len(self.slots) < self._connections:
                self.slots.append(self.client.slot())
                self._send(self.slots[-1], moment)
            else:
                self._waiting.append(moment)
        if self._next < math.inf:
            self._timer.arm(self._next - perf_counter())

    def _send(self, slot: Slot, intended: float) -> None:
        slot.intended = intended
        slot.send(self.next_payload())
