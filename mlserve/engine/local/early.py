"""The first worker's process, started before the server's own modules are imported.

Those take half a second of CPU and `import torch` two: side by side on two cores, a torch model answers its first
request when torch is there, and a model without it when the server is. What the process becomes is decided as for any
spare.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from mlserve.core.model import ModelKey, ModelSpec
from mlserve.engine.local.devices import available_cpus
from mlserve.engine.local.fitting import spare_environment
from mlserve.engine.local.launch import load_options, worker_env
from mlserve.engine.local.spawn import (
    REPLIES,
    REQUESTS,
    SPARE_COMMAND,
    Started,
    request_arena,
    start,
    with_arenas,
    worker_arenas,
)
from mlserve.settings import Settings
from mlserve.wire.lending import LendingArena


@dataclass
class Begun:
    """A spare process that runs and has been told what to import, for the model of ``url``."""

    started: Started
    arenas: list[LendingArena]  # the first is for the requests to all workers of the engine that takes it
    environment: dict[str, str]
    modules: tuple[str, ...]
    url: str
    taken: bool = False  # an engine looks after it

    def end(self) -> None:
        """End it, unless it is an engine's: for a server that did not get as far as having one."""
        if self.taken:
            return
        self.started.end()
        for arena in self.arenas:
            arena.close()


def begin(settings: Settings, url: str, modules: Sequence[str]) -> Begun | None:
    """Start a process that imports ``modules``. None where that cannot be done: the worker will be started as any."""
    cpus = available_cpus()
    anybody = ModelSpec(ModelKey("", ""), "", "")  # what is the model's own can be set late, or rules it out
    environment = spare_environment(worker_env(anybody, (), cpus, 1, options=load_options(settings)), cpus)
    arenas = worker_arenas(request_arena(REQUESTS), REPLIES)
    try:
        started = start(with_arenas(SPARE_COMMAND, arenas), environment, [arena.fd for arena in arenas])
    except OSError:
        for arena in arenas:
            arena.close()
        return None
    from mlserve.wire.frames import Kind, frame  # msgspec, while the process comes up
    from mlserve.wire.payload import Warm

    with contextlib.suppress(OSError):  # it has ended, which will be seen
        started.sock.sendall(frame(Kind.WARM, meta=Warm(list(modules))))
    return Begun(started, arenas, environment, tuple(modules), url)
