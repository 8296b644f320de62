"""A worker's process that has been told nothing yet, started before this process has read its settings.

It imports its own modules meanwhile, a tenth of a second of CPU. What the settings say of its environment it is told
with its first frame, before it imports what looks there. Few imports here: each of them comes before the process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from mlserve.engine.local.environment import base_environment
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
from mlserve.wire.lending import LendingArena


class Bare:
    """The process, what it maps, the environment that it was started with. ``taken``: somebody else looks after it."""

    def __init__(self, started: Started, arenas: list[LendingArena], environment: Mapping[str, str]) -> None:
        self.started = started
        self.arenas = arenas  # the first is for the requests to all workers of the engine that takes it
        self.environment = environment
        self.taken = False

    def end(self) -> None:
        """End it, unless it has been taken."""
        if self.taken:
            return
        self.taken = True
        self.started.end()
        for arena in self.arenas:
            arena.close()


def start_bare(environment: Mapping[str, str] | None = None) -> Bare | None:
    """Start one, with what is the same for all workers unless an environment is given. None where that fails."""
    if environment is None:
        environment = base_environment(os.environ)
    arenas = worker_arenas(request_arena(REQUESTS), REPLIES)
    try:
        started = start(with_arenas(SPARE_COMMAND, arenas), environment, [arena.fd for arena in arenas])
    except OSError:
        for arena in arenas:
            arena.close()
        return None
    return Bare(started, arenas, environment)
