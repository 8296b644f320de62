"""The queue of models whose workers have requests side by side."""

from __future__ import annotations

from typing import Any

import pytest
from support.core_fakes import Endings, FakeClock, FakeSlot, make_queue, put

from mlserve.core.itemwise import ASYNC_LIMIT
from mlserve.errors import QueueFull


def queue_with(workers: int, **spec: Any) -> tuple[FakeClock, Any, list[FakeSlot]]:
    clock = FakeClock()
    queue = make_queue(clock, **spec)
    slots = [FakeSlot(queue, 9000 + number) for number in range(workers)]
    for slot in slots:
        queue.slot_ready(slot)
    return clock, queue, slots


def names(slot: FakeSlot) -> list[list[str]]:
    return [[job.request.request_id for job in batch.jobs] for batch in slot.batches]


def test_a_request_joins_what_runs_without_waiting_for_it() -> None:
    clock, queue, (slot,) = queue_with(1, continuous_batching=True, batch_size=3)
    endings = Endings()
    for name in "abcd":
        put(queue, name, endings)
        clock.turn()
    assert names(slot) == [["a"], ["b"], ["c"]]
    slot.answer(which=1)
    assert list(endings.results) == ["b"]
    assert names(slot) == [["a"], ["c"], ["d"]]


def test_requests_go_to_the_worker_that_has_the_fewest() -> None:
    clock, queue, slots = queue_with(2, continuous_batching=True, batch_size=4)
    for name in "abcd":
        put(queue, name, Endings())
    clock.turn()
    assert [slot.in_flight for slot in slots] == [2, 2]


def test_a_request_that_is_to_be_alone_waits_for_an_empty_worker_and_keeps_it() -> None:
    clock, queue, (slot,) = queue_with(1, continuous_batching=True, batch_size=4)
    put(queue, "a", Endings())
    clock.turn()
    put(queue, "describe", Endings(), alone=True)
    put(queue, "b", Endings())
    clock.turn()
    assert names(slot) == [["a"]]
    slot.answer()
    assert names(slot) == [["describe"]]
    slot.answer()
    assert names(slot) == [["b"]]


def test_an_asynchronous_worker_gets_requests_without_answering_any() -> None:
    clock, queue, (slot,) = queue_with(1, async_communication=True, batch_size=1, job_queue_size=ASYNC_LIMIT + 5)
    for number in range(50):
        put(queue, str(number), Endings())
    clock.turn()
    assert slot.in_flight == 50


def test_a_dead_worker_took_everything_it_had_into_account() -> None:
    clock, queue, slots = queue_with(2, continuous_batching=True, batch_size=2, retry_on_worker_death=0)
    endings = Endings()
    for name in "abcd":
        put(queue, name, endings)
    clock.turn()
    slots[0].die()
    assert sorted(endings.results) == ["a", "c"]
    assert endings.kind("a") == "worker_died"


@pytest.mark.parametrize(
    ("spec", "taken"),
    [({"batch_size": 1}, 2), ({"batch_size": 4, "continuous_batching": True}, 8)],
    ids=["plain", "continuous"],
)
def test_with_tickets_a_request_is_taken_only_for_a_worker_that_waits(spec: dict[str, Any], taken: int) -> None:
    clock, queue, slots = queue_with(2, use_job_ticket=True, **spec)
    for number in range(taken):
        put(queue, str(number), Endings())
    with pytest.raises(QueueFull, match="useJobTicket"):
        put(queue, "late", Endings())
    clock.turn()
    with pytest.raises(QueueFull):
        put(queue, "later", Endings())
    slots[0].answer()
    put(queue, "next", Endings())


def test_a_model_s_client_timeout_ends_requests_that_bring_none() -> None:
    clock, queue, (_slot,) = queue_with(1, client_timeout_ms=50, batch_size=1)
    endings = Endings()
    put(queue, "own", endings, timeout=0.2)
    put(queue, "none", endings)
    clock.advance(0.06)
    assert endings.kind("none") == "timeout"
    assert "own" not in endings.results
    clock.advance(0.2)
    assert endings.kind("own") == "timeout"
