"""What the service tells of a change that was asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from mlserve.core.model import ModelKey


@dataclass(frozen=True)
class Registered:
    """What ``register`` did; ``done`` is False while workers are still starting."""

    key: ModelKey
    workers: int
    done: bool


@dataclass(frozen=True)
class Scaled:
    """What ``scale`` did; ``done`` is False while workers are still starting or stopping."""

    key: ModelKey
    workers: int
    done: bool
