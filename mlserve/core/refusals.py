"""Why a model's queue does not take a request, in words that say what to do about it."""

from __future__ import annotations

from mlserve.core.model import ModelSpec
from mlserve.errors import QueueFull


def no_worker(spec: ModelSpec) -> str:
    """Why a model that is registered with no workers takes no requests."""
    name, version = spec.key
    return (
        f'Model "{name}" version "{version}" has no worker to serve inference request. '
        f"Scale it up: PUT /models/{name}/{version}?min_worker=1, or `mlserve models scale {name}`"
    )


def no_ticket(spec: ModelSpec) -> QueueFull:
    """Nobody waits for a request."""
    return QueueFull(
        f'Model "{spec.key.name}" takes a request only while a worker waits for one (useJobTicket), and all are busy. '
        "Send again later, or scale up its workers",
        retry_after=1.0,
    )


def queue_full(spec: ModelSpec) -> QueueFull:
    """The queue is at its limit."""
    return QueueFull(
        f'Model "{spec.key.name}" has {spec.job_queue_size} requests waiting already (job_queue_size). '
        "Send more slowly, scale up its workers, or raise job_queue_size",
        retry_after=1.0,
    )
