"""The two clocks over a loaded worker: is it alive, and is it done in time?

Neither costs anything per request: the link notes when it last heard something, and the timers look at that. A worker
with a batch in flight is the response timeout's business alone: a handler may hold the interpreter lock for minutes, so
that not even the worker's reader thread can answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from mlserve.engine.local.link import WorkerLink

HEARTBEAT = 5.0
MISSED = 3


class LinkWatch:
    """Calls ``fault(slug, text)`` once the worker behind ``link`` must be given up."""

    def __init__(
        self,
        link: WorkerLink,
        response_timeout: float,
        fault: Callable[[str, str], object],
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._response_timeout = response_timeout
        self._heartbeat = heartbeat
        self._fault = fault
        self._unanswered = 0  # pings since the worker was last heard
        self._last_ping = 0.0
        self._beat_timer = self._loop.call_later(heartbeat, self._beat)
        self._response_timer = self._loop.call_later(response_timeout, self._check) if response_timeout > 0 else None

    def stop(self) -> None:
        """Watch no longer."""
        self._beat_timer.cancel()
        if self._response_timer is not None:
            self._response_timer.cancel()

    def _beat(self) -> None:
        if self._link.in_flight or self._link.heard > self._last_ping:
            self._unanswered = 0
        elif self._unanswered >= MISSED:
            self._fault("heartbeat_lost", f"answered none of {MISSED} pings (heartbeat lost)")
            return
        if not self._link.in_flight:
            self._unanswered += 1
            self._last_ping = monotonic()
            self._link.ping()
        self._beat_timer = self._loop.call_later(self._heartbeat, self._beat)

    def _check(self) -> None:
        """Always a full timeout ahead, or what is left of the head batch's: sending arms nothing."""
        left = self._response_timeout
        if self._link.in_flight:
            left -= monotonic() - self._link.progress
        if left <= 0:
            limit = f"response_timeout is {self._response_timeout:g} s"
            self._fault("response_timeout", f"did not answer in time ({limit}; responseTimeout in model-config.yaml)")
            return
        self._response_timer = self._loop.call_later(max(left, 0.001), self._check)
