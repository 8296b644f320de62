"""A context of its own for each of several batches that are in the handler's hands at once.

What is about the model, or was kept on the context by the handler, is shared; what is about requests is not.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextvars import ContextVar
from typing import cast

from mlserve.handler import Context, PhaseTimer
from mlserve.worker.metrics import Metrics

_current: ContextVar[Context] = ContextVar("current")


def own_context(context: Context) -> Context:
    """A context for one batch; the thread or task that calls this works on it from now on, see :func:`work_on`."""
    own = copy.copy(context)
    own.phases = PhaseTimer()
    work_on(own)
    return own


def work_on(own: Context) -> None:
    """What the calling thread or task reports as metrics is about the requests of ``own``."""
    _current.set(own)


class _Followed:
    """What metrics ask for the ids of the requests that a report is about: those of the task that makes it."""

    def __init__(self, loaded: Context) -> None:
        self._loaded = loaded

    @property
    def request_ids(self) -> Mapping[int, str]:
        return _current.get(self._loaded).request_ids


def let_metrics_follow(loaded: Context) -> None:
    """Have the metrics of ``loaded`` take request ids from the context that is worked on, not from ``loaded``."""
    if isinstance(loaded.metrics, Metrics):
        loaded.metrics.follow(cast(Context, _Followed(loaded)))
