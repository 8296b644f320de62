"""Is the server ready? What probes are told, and which models count.

Two meanings, because orchestrators and TorchServe's users ask for different things. mlserve's own: a model that was
named at start, or has been ready once, must have a worker that can answer now. TorchServe's (``retrying_counts``): no
default version may have fewer healthy workers than it is to keep, and one is healthy for as long as it is started
again, so that a crash is not seen in ``/ping`` before ``max_retry_timeout`` is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mlserve.core.registry import Registry, VersionHandle


@dataclass(frozen=True)
class Health:
    """``ready``: every model that counts can serve. ``models`` tells by name whether its default version can."""

    live: bool
    ready: bool
    models: dict[str, bool]


def judge(registry: Registry, missing: Iterable[str], up: bool, retrying_counts: bool) -> Health:
    """The health of all models. ``missing`` are the names of models that were named at start and could not be loaded;
    ``up`` is False while the server starts or stops."""
    models = dict.fromkeys(missing, False)
    ready = up and (retrying_counts or not models)
    for name, model in registry:
        handle = model.versions[model.default]
        models[name] = handle.pool.live >= handle.spec.min_workers if retrying_counts else handle.ready_workers > 0
        ready = ready and (models[name] or not (retrying_counts or _required(handle)))
    return Health(live=True, ready=ready, models=models)


def _required(handle: VersionHandle) -> bool:
    """One that is loading for the first time, by API, does not take a serving server out of rotation."""
    return handle.spec.min_workers > 0 and (handle.spec.loaded_at_startup or handle.queue.was_ready)
