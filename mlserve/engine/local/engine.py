"""Workers as processes of this machine: what all pools share, and the end of everything."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

from mlserve.core.model import ModelKey, ModelSpec, WorkerInfo
from mlserve.core.ports import SlotEvents
from mlserve.engine.local.devices import DeviceAllocator
from mlserve.engine.local.launch import LoadOptions, ranks, worker_command
from mlserve.engine.local.pool import LocalPool
from mlserve.engine.local.watch import HEARTBEAT

FIRST_WORKER_ID = 9000
FIRST_GROUP_ID = 29500
ARENA_SIZE = 64 << 20


class LocalEngine:
    """See ``core.ports.Engine``.

    ``gpu_ids`` are physical ids, given to workers in turn; ``cpus`` is what the workers of a model share. ``on_state``
    is called at each step of a worker, on the event loop. ``command`` replaces the worker's command line, which gets
    file descriptors appended. ``arena_size`` bytes are reserved twice per worker, and use memory only once large
    payloads come. Ids of workers count up from ``first_id``, those of groups of processes from ``first_group_id``.
    """

    def __init__(
        self,
        *,
        gpu_ids: Sequence[int],
        cpus: float,
        options: LoadOptions,
        on_state: Callable[[ModelKey, WorkerInfo], object] | None = None,
        command: Callable[[ModelSpec, LoadOptions | None], Sequence[str]] = worker_command,
        arena_size: int = ARENA_SIZE,
        heartbeat: float = HEARTBEAT,
        first_id: int = FIRST_WORKER_ID,
        first_group_id: int = FIRST_GROUP_ID,
    ) -> None:
        self._devices = DeviceAllocator(gpu_ids)
        self._cpus = cpus
        self._options = options
        self._on_state = on_state
        self._command = command
        self._arena_size = arena_size
        self._heartbeat = heartbeat
        self._ids = itertools.count(first_id)
        self._group_ids = itertools.count(first_group_id)
        self._pools: list[LocalPool] = []

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
            arena_size=0 if relayed else self._arena_size,
            heartbeat=self._heartbeat,
            on_state=on_state,
        )
        self._pools.append(pool)
        return pool

    async def close(self) -> None:
        """End every worker that is left, at once."""
        await asyncio.gather(*(pool.stop(0) for pool in self._pools))
        self._pools.clear()
