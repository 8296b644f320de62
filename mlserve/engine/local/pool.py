"""The workers of one model version: as many as there should be, each under its own supervisor.

Scaling is serialised: whoever comes second sees the result of the first. ``stop`` waits for nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count

from mlserve.core.lifecycle import WorkerState
from mlserve.core.model import ModelSpec, WorkerInfo
from mlserve.core.ports import SlotEvents
from mlserve.engine.local.devices import ModelDevices
from mlserve.engine.local.launch import LoadOptions, devices_per_worker
from mlserve.engine.local.spares import Spares
from mlserve.engine.local.supervisor import Shared, Worker
from mlserve.errors import ErrorKind, ServeError, WorkerStartError
from mlserve.wire.lending import LendingArena

log = logging.getLogger(__name__)

_GOING = (WorkerState.DRAINING, WorkerState.STOPPED)
_LIVE = (WorkerState.STARTING, WorkerState.LOADING, WorkerState.READY, WorkerState.BACKOFF)


class LocalPool:
    """See ``core.ports.Pool``. ``restarts`` counts them by reason, from zero."""

    def __init__(
        self,
        spec: ModelSpec,
        events: SlotEvents,
        *,
        ids: Iterator[int],
        devices: ModelDevices,
        cpus: float,
        options: LoadOptions,
        command: Sequence[str],
        requests: LendingArena | None,
        arena_size: int,
        heartbeat: float,
        spares: Spares | None,
        on_state: Callable[[WorkerInfo], object],
    ) -> None:
        self._spec = spec
        self._events = events
        self._ids = ids
        self._devices = devices
        self._per_worker = devices_per_worker(spec)
        self._workers: list[Worker] = []
        self._lock = asyncio.Lock()
        self._stopped = False
        self._shared = Shared(
            spec=spec,
            events=events,
            options=options,
            cpus=cpus,
            command=command,
            on_state=on_state,
            on_end=self._ended,
            requests=requests,
            arena_size=arena_size,
            heartbeat=heartbeat,
            spares=spares,
        )
        self.restarts = self._shared.restarts

    @property
    def target(self) -> int:
        """See ``core.ports.Pool``."""
        return self._shared.target

    @property
    def live(self) -> int:
        """See ``core.ports.Pool``."""
        return len(self._live())

    @property
    def ended(self) -> bool:
        """True when the pool has been stopped and nothing is left of it."""
        return self._stopped and not self._workers

    async def scale(self, count: int) -> None:
        """See ``core.ports.Pool``. Workers that had been given up are started anew."""
        if count < 0:
            raise ValueError(f"a pool cannot have {count} workers")
        most = self._devices.most(self._per_worker)
        if most is not None and count > most:
            log.warning("model %s: %d workers, because each takes %d GPUs", self._spec.key, most, self._per_worker)
            count = most
        async with self._lock:
            if self._stopped:
                raise ServeError(f"Model {self._spec.key} is being unloaded", kind=ErrorKind.CONFLICT)
            self._shared.target = count
            surplus = self._surplus(count)
            if surplus:
                await asyncio.gather(*(worker.stop(None) for worker in surplus))
            missing = count - len(self._live())
            if missing > 0:
                await self._start(missing)

    async def stop(self, grace: float) -> None:
        """See ``core.ports.Pool``. May be called again with a shorter ``grace``; 0 kills."""
        self._stopped = True
        self._shared.target = 0
        if self._shared.spares is not None:
            self._shared.spares.forget(self._spec.key)
        if self._workers:
            await asyncio.gather(*(worker.stop(max(grace, 0.0)) for worker in self._workers))

    def describe(self) -> list[WorkerInfo]:
        """See ``core.ports.Pool``."""
        return [worker.info() for worker in sorted(self._workers, key=lambda worker: worker.worker_id)]

    def states(self) -> Counter[str]:
        """How many workers are in each state, by ``WorkerState`` value; cheap, unlike :meth:`describe`."""
        return Counter(worker.state.value for worker in self._workers)

    def _live(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.state in _LIVE]

    def _surplus(self, count: int) -> list[Worker]:
        """Whom to stop: all that failed, then of the others those that serve nobody, and the newest, first."""
        failed = [worker for worker in self._workers if worker.state is WorkerState.FAILED]
        live = sorted(self._live(), key=lambda worker: (worker.state is WorkerState.READY, -worker.worker_id))
        return failed + live[: max(0, len(live) - count)]

    async def _start(self, missing: int) -> None:
        """Start workers side by side and return when all have loaded, or raise why one has not."""
        taken = {worker.index for worker in self._live()}
        places = (index for index in count() if index not in taken)
        new = [
            Worker(next(self._ids), self._devices.next(self._per_worker), self._shared, next(places))
            for _ in range(missing)
        ]
        self._workers += new
        await asyncio.wait([worker.first_load for worker in new])
        failures = [(worker, ending) for worker in new if (ending := worker.first_load.result()) is not None]
        if failures:
            self._shared.target = len(self._live())
            worker, ending = failures[-1]
            name, version = self._spec.key
            error = WorkerStartError(
                f"Failed to start workers for model {name} version: {version}. Worker {worker.worker_id} {ending.text}",
                detail=ending.detail,
                kind=ErrorKind.OUT_OF_MEMORY if ending.slug == "out_of_memory" else None,
            )
            error.killed = ending.killed
            raise error

    def _ended(self, worker: Worker, error: ServeError | None) -> None:
        """A supervisor is done: its worker was stopped, or given up (``error``)."""
        if error is None:
            self._workers.remove(worker)
        elif not self._live() and not any(other.state in _GOING for other in self._workers):
            self._events.gave_up(error)
