"""Requests of similar size share a batch, and none is passed over."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.core_fakes import Endings, FakeClock, FakeSlot, make_queue
from support.simulation import Outcome, Rig

from mlserve.core.buckets import UNKNOWN, BucketQueue
from mlserve.core.job import Batch
from mlserve.core.messages import InferenceRequest, Part

WORDS = [2, 3, 4, 5, 6, 8, 8, 10, 12, 15, 20, 25, 30, 40, 60, 80, 120, 200]


def padded(batch: Batch) -> int:
    return len(batch) * max(job.request.size for job in batch.jobs)


class Padding(Rig):
    """A model whose cost is that of its padded batch, in bytes."""

    next_size: Callable[[], int]

    def seconds(self, batch: Batch) -> float:
        return self.cost(padded(batch))

    def body(self) -> bytes:
        return b"x" * self.next_size()


def put(queue: BucketQueue, endings: Endings, name: str, size: int, **more: bool) -> None:
    queue.put(InferenceRequest(name, [Part("body", b"x" * size)], **more), endings, lambda job, chunk: None)


def make(batch_size: int) -> tuple[FakeClock, BucketQueue, Endings]:
    clock = FakeClock()
    queue = make_queue(clock, batch_policy="bucket", batch_size=batch_size, max_batch_delay_ms=0.0)
    assert isinstance(queue, BucketQueue)
    queue.accept()
    return clock, queue, Endings()


def names(batch: Batch) -> list[str]:
    return [job.request.request_id for job in batch.jobs]


def served(policy: str, clients: int, call: int) -> Outcome:
    """Texts that differ in length, in turn, on a model that pads; ``call`` is what a batch costs beside, in bytes."""
    sizes = [6 * words for words in WORDS]
    random.Random(5).shuffle(sizes)
    turns = itertools.cycle(sizes)
    rig = Padding(lambda size: 6e-5 * (size + call), batch_size=8, batch_policy=policy)
    rig.next_size = lambda: next(turns)
    return rig.closed_loop(clients, 6.0)


@pytest.mark.parametrize("call", [30, 360])
@pytest.mark.parametrize("clients", [8, 32])
def test_padding_does_not_take_most_of_the_time(clients: int, call: int) -> None:
    bucket, eager = served("bucket", clients, call), served("eager", clients, call)
    assert bucket.rate > 1.8 * eager.rate
    assert bucket.worst < 1.5 * eager.worst


def test_with_many_waiting_it_comes_near_to_no_padding_at_all() -> None:
    rows = sorted(WORDS * 8)
    loop = len(rows) / sum(6e-5 * (8 * 6 * rows[start + 7] + 120) for start in range(0, len(rows), 8))
    assert served("bucket", 64, 120).rate > 0.95 * loop


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 500), min_size=1, max_size=60), call=st.sampled_from([0.0, 50.0, UNKNOWN]))
def test_a_request_is_sent_with_the_batch_of_its_place_at_the_latest(sizes: list[int], call: float) -> None:
    _, queue, endings = make(4)
    queue.call = call
    for number, size in enumerate(sizes):
        put(queue, endings, str(number), size)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    left, sent = [str(number) for number in range(len(sizes))], 0
    while left:
        batch = names(slot.batches[0])
        assert left[0] in batch, "the oldest"
        assert batch == sorted(batch, key=int)
        left = [name for name in left if name not in batch]
        sent += len(batch)
        queue.call = call
        slot.answer(took=0.01)
    assert sent == len(sizes) == len(endings.results)


def test_similar_sizes_leave_together() -> None:
    _, queue, endings = make(2)
    for name, size in (("long", 900), ("short", 10), ("longer", 950), ("shorter", 8)):
        put(queue, endings, name, size)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    assert names(slot.answer(took=0.01)) == ["long", "longer"]
    assert names(slot.answer(took=0.01)) == ["short", "shorter"]


def test_a_request_that_is_to_be_alone_is_alone_and_in_its_place() -> None:
    _, queue, endings = make(4)
    for name in "abc":
        put(queue, endings, name, 10, alone=name == "b")
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    assert [names(slot.answer(took=0.01)) for _ in range(3)] == [["a"], ["b"], ["c"]]


def test_a_model_that_does_not_care_about_sizes_gets_full_batches() -> None:
    rng = random.Random(1)
    rig = Rig(lambda size: 0.005 + 0.001 * size, batch_size=8, batch_policy="bucket")
    rig.body = lambda: b"x" * rng.randint(1000, 100_000)  # type: ignore[method-assign]
    sizes = rig.closed_loop(32, 2.0).sizes
    assert sum(sizes) / len(sizes) > 7


def test_what_can_be_chosen_from_is_not_bound_to_a_busy_worker() -> None:
    clock, queue, endings = make(2)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    for number in range(2):
        put(queue, endings, f"a{number}", 10)
    clock.turn()
    slot.answer(took=0.5)
    for number in range(6):
        put(queue, endings, f"b{number}", 10)
    clock.turn()
    assert slot.in_flight == 1
