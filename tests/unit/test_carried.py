"""Large requests whose batches take longer to carry than to compute."""

from __future__ import annotations

import pytest
from support.core_fakes import Endings, FakeClock, FakeSlot, make_queue, put


@pytest.mark.parametrize(
    ("size", "took", "transfer", "batches"),
    [
        (1 << 20, 0.0001, 0.001, [2, 2]),
        (1 << 20, 0.0011, 0.001, [8]),  # computing takes longer
        (1 << 20, 0.0021, 0.003, [8]),  # worth a full batch however long it was on its way
        (10_000, 0.0001, 0.001, [8]),
    ],
)
def test_large_bodies_that_only_have_to_be_carried_do_not_wait_for_a_full_batch(
    size: int, took: float, transfer: float, batches: list[int]
) -> None:
    clock, endings, body = FakeClock(), Endings(), bytes(size)
    queue = make_queue(clock, batch_size=8)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    put(queue, "first", endings, body=body)
    clock.turn()
    slot.answer(took, transfer=transfer)
    for name in "abcdefgh":
        put(queue, name, endings, body=body)
    clock.turn()
    assert [len(batch) for batch in slot.batches] == batches
    while slot.batches:
        slot.answer(took, transfer=transfer)
    assert {endings.kind(name) for name in "abcdefgh"} == {"ok"}
    assert queue.idle
