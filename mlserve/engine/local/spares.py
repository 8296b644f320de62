"""Spare workers of this server: when there is one, what it has imported, who gets it.

A spare is kept for models whose workers report imports that take long (torch, ONNX Runtime); their next worker then
starts with those done. It is made in quiet times only, and not where memory is short. Its own end is no error of
anybody's: it is noted at level debug, and the next one comes after a pause that grows.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlserve.core.lifecycle import Backoff
from mlserve.core.model import ModelKey, ModelSpec, SpareInfo
from mlserve.engine.local.fitting import (
    late_changes,
    likely_packages,
    packages,
    recipe,
    shadowed,
    spare_environment,
)
from mlserve.engine.local.memory import available_memory
from mlserve.engine.local.spare import Spare

if TYPE_CHECKING:
    from mlserve.engine.local.early import Begun
    from mlserve.wire.lending import LendingArena

log = logging.getLogger(__name__)

QUIET = 1.0  # s after the last start of a worker, whose first requests take longer than others: a spare would slow them
MEMORY_TO_START = 4  # times its size must be free for a spare to be made ...
MEMORY_TO_STAY = 2  # ... and for it to stay
MEMORY_CHECK = 30.0  # s between two looks at that
_FIRST_GUESS = 256 << 20  # bytes of a spare before one has been measured: with torch it is 180 MiB


@dataclass(frozen=True)
class Known:
    """What a model's worker, started the ordinary way, was started with and has imported."""

    environment: Mapping[str, str]
    modules: tuple[str, ...]


class Spares:
    """Keeps ``count`` of them, where there is a use for them. ``command`` starts a worker; it may have all ``cpus``."""

    def __init__(
        self,
        count: int,
        command: Sequence[str],
        requests: LendingArena | None,
        arena_size: int,
        cpus: float,
        available: Callable[[], int] = available_memory,
    ) -> None:
        self._count = count
        self._command = list(command)
        self._requests = requests
        self._arena_size = arena_size
        self._cpus = cpus
        self._available = available
        self._known: dict[ModelKey, Known] = {}
        self._runs: dict[Spare, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._backoff = Backoff(math.inf)
        self._size = _FIRST_GUESS
        self._short = False  # of memory, and it has been said
        self._closed = False

    # -- what the workers' supervisors call ---------------------------------------------------------------------------

    async def take(
        self, spec: ModelSpec, environment: Mapping[str, str], stopped: asyncio.Event
    ) -> tuple[Spare, dict[str, str | None]] | None:
        """A spare that can become the next worker of ``spec``, and what to set late for that; or None.

        ``environment`` is what that worker would be started with. Waits for a spare that is not warm yet, but not
        beyond ``stopped``. The caller is to hand it over before it awaits anything.
        """
        self.postpone()
        spare = self._choose(spec, environment)
        if spare is None:
            return None
        if not spare.usable():
            spare.reserved = True
            waits = [asyncio.ensure_future(one) for one in (spare.settled(), stopped.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            spare.reserved = False
        changes = late_changes(spare.environment, environment)
        if changes is None or not spare.usable() or shadowed(spec.model_dir, spare.top):
            return None
        return spare, changes

    def _choose(self, spec: ModelSpec, environment: Mapping[str, str]) -> Spare | None:
        """One that is warm, or else will be, and has nothing that the model does not need."""
        known = self._known.get(spec.key)
        wanted = packages(known.modules) if known is not None else likely_packages(spec)
        fit = [
            spare
            for spare in self._runs
            if (spare.made_for == spec.url if spare.made_for else wanted and spare.packages <= wanted)
            and late_changes(spare.environment, environment) is not None
            and not shadowed(spec.model_dir, spare.top)
        ]
        warm = [spare for spare in fit if spare.usable()]
        return next(iter(warm or [spare for spare in fit if spare.coming()]), None)

    def adopt(self, begun: Begun) -> None:
        """Keep a process that has been started already."""
        self._add(Spare(begun.environment, begun.modules, self._warmed, begun))

    def settle(self, delay: float) -> None:
        """The models named at start are loaded, or will have asked for workers in ``delay`` seconds: what was started
        for one and is not its worker then has no use."""
        asyncio.get_running_loop().call_later(delay, self._end_unused)

    def _end_unused(self) -> None:
        for spare, task in self._runs.items():
            if spare.made_for and not spare.reserved and spare.state != "gone":
                task.cancel()

    def learn(self, spec: ModelSpec, environment: Mapping[str, str], modules: Sequence[str]) -> None:
        """A worker of ``spec`` is ready and says what it has imported."""
        self._known[spec.key] = Known(environment, tuple(modules))
        self.postpone()

    def knows(self, key: ModelKey) -> bool:
        """Whether :meth:`learn` has been called for the model."""
        return key in self._known

    def forget(self, key: ModelKey) -> None:
        """The model is gone; if it was the last of its kind, so are the spares."""
        if self._known.pop(key, None) is not None and not self._recipe():
            self._end_all()

    def postpone(self) -> None:
        """A worker starts or has started: think of spares when it has been quiet for a while."""
        self._schedule(QUIET)

    def describe(self) -> list[SpareInfo]:
        """One entry per process."""
        return [spare.info() for spare in self._runs]

    async def close(self) -> None:
        """End them all; none will be made any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._end_all()
        if self._runs:
            await asyncio.wait(list(self._runs.values()))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _recipe(self) -> tuple[str, ...]:
        return recipe(known.modules for known in self._known.values())

    def _schedule(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._count and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        """Make what is missing, or end what there is no room for."""
        modules = self._recipe()
        if not modules:
            return
        available = self._available()
        need = self._size * (MEMORY_TO_STAY if self._runs else MEMORY_TO_START)
        if available < need:
            if not self._short:
                log.info(
                    "no spare worker: %d MiB of memory are free, and %d are asked for", available >> 20, need >> 20
                )
            self._short = True
            self._end_all()
        else:
            self._short = False
            if len(self._runs) < self._count:
                self._start(modules)
        self._schedule(MEMORY_CHECK)

    def _start(self, modules: tuple[str, ...]) -> None:
        known = next(one for one in self._known.values() if set(modules) <= set(one.modules))
        self._add(Spare(spare_environment(known.environment, self._cpus), modules, self._warmed))

    def _add(self, spare: Spare) -> None:
        run = spare.run(self._command, self._requests, self._arena_size)
        task = self._runs[spare] = asyncio.get_running_loop().create_task(run, name="spare-worker")
        task.add_done_callback(lambda _task: self._over(spare))

    def _warmed(self, spare: Spare) -> None:
        self._size = spare.proportional or self._size
        self._backoff.ready(time.monotonic())
        if len(self._runs) < self._count:
            self._schedule(QUIET)

    def _over(self, spare: Spare) -> None:
        """It has been taken, or has ended."""
        task = self._runs.pop(spare)
        if spare.state == "gone":
            self.postpone()
            return
        asked = task.cancelled()
        if spare.spoiled:  # so would the next one be
            self._count = 0
        if not asked and (error := task.exception()) is not None:
            log.debug("a spare worker could not be started: %s", error)
        if not asked:
            delay = self._backoff.failed(time.monotonic()) or 0.0
            log.debug("a spare worker has ended; the next one comes in %g s", delay + QUIET)
            self._schedule(delay + QUIET)

    def _end_all(self) -> None:
        for spare, task in self._runs.items():
            if spare.state != "gone":
                task.cancel()
