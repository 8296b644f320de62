"""Workers as processes of this machine: what all pools share, and the end of everything."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlserve.core.model import ModelKey, ModelSpec, SpareInfo, WorkerInfo
from mlserve.core.ports import SlotEvents
from mlserve.engine.local.devices import DeviceAllocator
from mlserve.engine.local.launch import LoadOptions, ranks, worker_command
from mlserve.engine.local.pool import LocalPool
from mlserve.engine.local.spares import Spares
from mlserve.engine.local.spawn import REPLIES, REQUESTS, SPARE_COMMAND, request_arena
from mlserve.engine.local.watch import HEARTBEAT

if TYPE_CHECKING:
    from mlserve.engine.local.early import Begun

FIRST_WORKER_ID = 9000
FIRST_GROUP_ID = 29500


class LocalEngine:
    """See ``core.ports.Engine``.

    ``gpu_ids`` are physical ids, given to workers in turn; ``cpus`` is what the workers of a model share. ``on_state``
    is called at each step of a worker, on the event loop. ``command`` replaces the worker's command line, which gets
    file descriptors appended. Large bodies lie in ``requests``, of ``request_size`` bytes, answers in ``arena_size``
    bytes per worker; both use memory only once there are any. At most ``spares`` processes wait to become workers;
    ``begun`` is a first one. Ids of workers count up from ``first_id``, those of groups of processes from
    ``first_group_id``.
    """

    def __init__(
        self,
        *,
        gpu_ids: Sequence[int],
        cpus: float,
        options: LoadOptions,
        on_state: Callable[[ModelKey, WorkerInfo], object] | None = None,
        command: Callable[[ModelSpec, LoadOptions | None], Sequence[str]] = worker_command,
        request_size: int = REQUESTS,
        arena_size: int = REPLIES,
        heartbeat: float = HEARTBEAT,
        spares: int = 0,
        begun: Begun | None = None,
        first_id: int = FIRST_WORKER_ID,
        first_group_id: int = FIRST_GROUP_ID,
    ) -> None:
        self._devices = DeviceAllocator(gpu_ids)
        self._cpus = cpus
        self._options = options
        self._on_state = on_state
        self._command = command
        self._arena_size = arena_size
        early = begun.arenas[0] if begun is not None and begun.arenas and spares else None
        self.requests = early or request_arena(request_size if arena_size else 0)
        self._heartbeat = heartbeat
        self._ids = itertools.count(first_id)
        self._group_ids = itertools.count(first_group_id)
        self._pools: list[LocalPool] = []
        self._spares: Spares | None = None
        if spares and sys.platform == "linux":
            self._spares = Spares(spares, SPARE_COMMAND, self.requests, arena_size, cpus)
        if self._spares is not None and begun is not None:
            self._spares.adopt(begun)

    def open(self, spec: ModelSpec, events: SlotEvents) -> LocalPool:
        """See ``core.ports.Engine``."""

        def on_state(info: WorkerInfo) -> None:
            if self._on_state is not None:
                self._on_state(spec.key, info)

        command = self._command(spec, self._options)
        relayed = "mlserve.worker.group" in command  # by a process that the arena would not reach beyond
        self._pools = [pool for pool in self._pools if not pool.ended]
        pool = LocalPool(
            spec,
            events,
            ids=self._group_ids if ranks(spec) else self._ids,
            devices=self._devices.for_model(spec),
            cpus=self._cpus,
            options=self._options,
            command=command,
            requests=None if relayed else self.requests,
            arena_size=0 if relayed else self._arena_size,
            heartbeat=self._heartbeat,
            spares=self._spares if list(command) == SPARE_COMMAND else None,
            on_state=on_state,
        )
        self._pools.append(pool)
        return pool

    def settle(self, delay: float) -> None:
        """What was to be loaded at start is loaded, or will have asked for its workers in ``delay`` seconds."""
        if self._spares is not None:
            self._spares.settle(delay)

    def spares(self) -> list[SpareInfo]:
        """See ``core.ports.Engine``."""
        return self._spares.describe() if self._spares is not None else []

    async def close(self) -> None:
        """End every worker that is left, at once."""
        ends = [pool.stop(0) for pool in self._pools]
        await asyncio.gather(*ends, *((self._spares.close(),) if self._spares is not None else ()))
        self._pools.clear()
        if self.requests is not None:
            self.requests.close()
