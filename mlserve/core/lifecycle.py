"""What may follow what in the life of a worker and of a model version, and how long to wait between two tries.

Tables rather than ``if``s, so that every step is listed once and anything else is a bug that raises at once. Nothing
here knows processes or clocks: the caller passes the time in, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar


class WorkerState(str, Enum):
    """Where a worker is. Busy is not a state: it follows from the batches in flight."""

    STARTING = "STARTING"  # the process has not spoken yet
    LOADING = "LOADING"  # the handler's initialize is running
    READY = "READY"
    DRAINING = "DRAINING"  # takes nothing new, answers what it has, then ends
    STOPPED = "STOPPED"
    BACKOFF = "BACKOFF"  # died; waits for its next try
    FAILED = "FAILED"  # will not be tried again


class WorkerEvent(str, Enum):
    """What can happen to a worker."""

    HELLO = "hello"
    LOADED = "loaded"
    DIED = "died"
    RETRY = "retry"
    GIVE_UP = "give up"
    STOP = "stop"


class VersionState(str, Enum):
    """Where a model version is. A version with no workers wanted is REGISTERED."""

    REGISTERED = "REGISTERED"
    LOADING = "LOADING"  # workers wanted, none ready
    READY = "READY"  # every worker that is wanted is ready
    DEGRADED = "DEGRADED"  # some of the wanted workers are ready
    FAILED = "FAILED"  # workers wanted, and none will come without a new scale
    DRAINING = "DRAINING"
    UNLOADED = "UNLOADED"


class VersionEvent(str, Enum):
    """What can happen to a version. The first four follow from counts: see :func:`version_event`."""

    EMPTY = "no workers wanted"
    DOWN = "no worker ready"
    PARTIAL = "some workers ready"
    UP = "all workers ready"
    GAVE_UP = "gave up"
    DRAIN = "drain"
    DRAINED = "drained"


class IllegalTransition(Exception):
    """An event came in a state in which it cannot happen."""


W, E = WorkerState, WorkerEvent

WORKER_TABLE: Mapping[tuple[WorkerState, WorkerEvent], WorkerState] = {
    (W.STARTING, E.HELLO): W.LOADING,
    (W.STARTING, E.DIED): W.BACKOFF,
    (W.STARTING, E.STOP): W.DRAINING,
    (W.LOADING, E.LOADED): W.READY,
    (W.LOADING, E.DIED): W.BACKOFF,
    (W.LOADING, E.STOP): W.DRAINING,
    (W.READY, E.DIED): W.BACKOFF,
    (W.READY, E.STOP): W.DRAINING,
    (W.DRAINING, E.DIED): W.STOPPED,
    (W.BACKOFF, E.RETRY): W.STARTING,
    (W.BACKOFF, E.GIVE_UP): W.FAILED,
    (W.BACKOFF, E.STOP): W.STOPPED,
    (W.FAILED, E.STOP): W.STOPPED,
}

V, M = VersionState, VersionEvent

_BY_COUNT = {M.EMPTY: V.REGISTERED, M.DOWN: V.LOADING, M.PARTIAL: V.DEGRADED, M.UP: V.READY}

VERSION_TABLE: Mapping[tuple[VersionState, VersionEvent], VersionState] = {
    **{
        (state, event): after
        for state in (V.REGISTERED, V.LOADING, V.READY, V.DEGRADED, V.FAILED)
        for event, after in {**_BY_COUNT, M.GAVE_UP: V.FAILED, M.DRAIN: V.DRAINING}.items()
    },
    (V.DRAINING, M.DRAINED): V.UNLOADED,
}

S = TypeVar("S", bound=Enum)
T = TypeVar("T", bound=Enum)


def _step(table: Mapping[tuple[S, T], S], what: str, state: S, event: T) -> S:
    try:
        return table[state, event]
    except KeyError:
        raise IllegalTransition(f"{what}: {event.name} cannot happen in state {state.name}") from None


def advance(state: WorkerState, event: WorkerEvent) -> WorkerState:
    """The worker's next state. Raises :class:`IllegalTransition` for a pair that is not in the table."""
    return _step(WORKER_TABLE, "worker", state, event)


def advance_version(state: VersionState, event: VersionEvent) -> VersionState:
    """The version's next state. Raises :class:`IllegalTransition` for a pair that is not in the table."""
    return _step(VERSION_TABLE, "version", state, event)


def version_event(ready: int, wanted: int) -> VersionEvent:
    """What ``ready`` of ``wanted`` workers means for their version."""
    if wanted <= 0:
        return VersionEvent.EMPTY
    if ready <= 0:
        return VersionEvent.DOWN
    return VersionEvent.UP if ready >= wanted else VersionEvent.PARTIAL


class Backoff:
    """Waits of ``first``, then 1 second, then the sum of the last two, at most ``cap``, between tries.

    ``window`` seconds after the first failure of a series there are no more tries. ``healthy_after`` seconds of being
    ready end a series: the next failure is a first one again.
    """

    def __init__(self, window: float, *, first: float = 0.0, cap: float = 60.0, healthy_after: float = 60.0) -> None:
        self._window = window
        self._begin = (first, 1.0)
        self._cap = cap
        self._healthy_after = healthy_after
        self._ready_since: float | None = None
        self._first_failure: float | None = None
        self._delays = self._begin

    def ready(self, now: float) -> None:
        """The worker became ready at ``now``."""
        self._ready_since = now

    def failed(self, now: float) -> float | None:
        """The worker died at ``now``: seconds to wait before the next try, or None to give up."""
        if self._ready_since is not None and now - self._ready_since >= self._healthy_after:
            self._first_failure, self._delays = None, self._begin
        self._ready_since = None
        if self._first_failure is None:
            self._first_failure = now
        delay, following = self._delays
        if now + delay - self._first_failure >= self._window:
            return None
        self._delays = (following, min(delay + following, self._cap))
        return delay
