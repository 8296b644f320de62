"""Which batching policy a model has, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlserve.core.adaptive import Adaptive
from mlserve.core.model import ModelSpec
from mlserve.core.policy import Bucket, Eager, Policy, Window
from mlserve.errors import InvalidInput

POLICIES: Mapping[str, Callable[[int, float, float], Policy]] = {
    "adaptive": Adaptive,
    "bucket": lambda batch_size, delay, target: Bucket(batch_size, delay),
    "eager": lambda batch_size, delay, target: Eager(batch_size, delay),
    "window": lambda batch_size, delay, target: Window(batch_size, delay),
}
"""Name -> what makes it of the batch size, the delay and the latency target, both in seconds."""


def make_policy(spec: ModelSpec) -> Policy:
    """The policy that ``spec`` asks for. Raises :class:`InvalidInput` for an unknown name."""
    try:
        make = POLICIES[spec.batch_policy]
    except KeyError:
        known = ", ".join(sorted(POLICIES))
        raise InvalidInput(f"Unknown batch_policy {spec.batch_policy!r}: use one of {known}") from None
    return make(spec.batch_size, spec.max_batch_delay_ms / 1000.0, spec.latency_target_ms / 1000.0)
