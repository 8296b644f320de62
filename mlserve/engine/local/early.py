"""The first worker's process, told what to import before the server's own modules are imported.

Those take half a second of CPU and `import torch` more than one: side by side on two cores, a torch model answers its
first request when torch is there, and a model without it when the server is. What the process becomes is decided as for
any spare.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from mlserve.core.model import ModelKey, ModelSpec
from mlserve.engine.local.bare import Bare, start_bare
from mlserve.engine.local.devices import available_cpus
from mlserve.engine.local.fitting import spare_environment
from mlserve.engine.local.launch import load_options, worker_env
from mlserve.engine.local.spawn import Started
from mlserve.settings import Settings
from mlserve.wire.lending import LendingArena


@dataclass
class Begun:
    """A spare process that runs and has been told what to import, for the model of ``url``."""

    bare: Bare
    environment: dict[str, str]  # as it has it now
    modules: tuple[str, ...]
    url: str

    @property
    def started(self) -> Started:
        """The process."""
        return self.bare.started

    @property
    def arenas(self) -> list[LendingArena]:
        """What it maps."""
        return self.bare.arenas

    def take(self) -> None:
        """An engine looks after it from now on."""
        self.bare.taken = True

    def end(self) -> None:
        """End it, unless it is an engine's: for a server that did not get as far as having one."""
        self.bare.end()


def begin(settings: Settings, url: str, modules: Sequence[str], bare: Bare | None = None) -> Begun | None:
    """Have a process import ``modules``: ``bare``, or a new one where that has seen what is kept from workers.

    None where that cannot be done: the worker will be started as any.
    """
    cpus = available_cpus()
    anybody = ModelSpec(ModelKey("", ""), "", "")  # what is the model's own can be set late, or rules it out
    environment = spare_environment(worker_env(anybody, (), cpus, 1, options=load_options(settings)), cpus)
    if bare is not None and not bare.environment.keys() <= environment.keys():
        bare.end()
        bare = None
    bare = bare or start_bare(environment)
    if bare is None:
        return None
    from mlserve.wire.frames import Kind, frame  # msgspec, while the process comes up
    from mlserve.wire.payload import Warm

    late = {name: value for name, value in environment.items() if bare.environment.get(name) != value}
    with contextlib.suppress(OSError):  # it has ended, which will be seen
        bare.started.sock.sendall(frame(Kind.WARM, meta=Warm(list(modules), late)))
    return Begun(bare, environment, tuple(modules), url)
