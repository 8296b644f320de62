"""Which queue a model gets: the plain one, unless its workers have requests side by side, its requests a state, or its
batches are to be of similar requests."""

from __future__ import annotations

from mlserve.core.buckets import BucketQueue
from mlserve.core.itemwise import ItemQueue
from mlserve.core.metrics import ModelStats
from mlserve.core.model import ModelSpec
from mlserve.core.pending import ModelQueue
from mlserve.core.ports import Clock
from mlserve.core.sequence import SequenceHeaders
from mlserve.core.sequences import SequenceQueue


def make_queue(spec: ModelSpec, clock: Clock, stats: ModelStats, names: SequenceHeaders) -> ModelQueue:
    """The queue for ``spec``; ``names`` are the headers that tell sequences."""
    if spec.sequence_batching:
        return SequenceQueue(spec, clock, stats, names)
    if spec.concurrent:
        return ItemQueue(spec, clock, stats)
    if spec.batch_policy == "bucket":
        return BucketQueue(spec, clock, stats)
    return ModelQueue(spec, clock, stats)
