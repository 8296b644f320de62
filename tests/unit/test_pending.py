"""The queue of a model version, driven by hand: admission, batching, expiry, cancelling, dying workers."""

from __future__ import annotations

import gc

import pytest
from support.core_fakes import Endings, FakeClock, FakeSlot, make_queue, put

from mlserve.core.job import Job
from mlserve.core.messages import Chunk, InferenceRequest, Part
from mlserve.errors import NoWorker, QueueFull, ServeError


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def endings() -> Endings:
    return Endings()


def test_requests_of_one_turn_leave_in_one_batch(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    for name in "abc":
        put(queue, name, endings)
    clock.turn()
    assert [len(batch) for batch in slot.batches] == [3]
    slot.answer()
    assert {name: endings.kind(name) for name in "abc"} == dict.fromkeys("abc", "ok")


def test_no_worker_and_none_coming_is_refused_at_once(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock)
    with pytest.raises(NoWorker, match=r"mlserve models scale m"):
        put(queue, "a", endings)
    queue.accept()
    put(queue, "b", endings)  # workers are on their way: it waits
    assert queue.depth == 1


def test_a_full_queue_is_refused_and_names_the_setting(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock, job_queue_size=2)
    queue.accept()
    put(queue, "a", endings)
    put(queue, "b", endings)
    with pytest.raises(QueueFull, match="job_queue_size") as caught:
        put(queue, "c", endings)
    assert caught.value.retry_after
    assert queue.stats.rejections["overloaded"] == 1


def test_requests_that_come_while_a_worker_computes_leave_together_when_it_is_done(
    clock: FakeClock, endings: Endings
) -> None:
    queue = make_queue(clock)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    put(queue, "a", endings)
    clock.turn()
    put(queue, "b", endings)
    clock.advance(1.0)
    put(queue, "c", endings)
    clock.turn()
    slot.answer()
    assert [len(batch) for batch in slot.batches] == [2]


def test_no_more_than_two_batches_are_in_flight(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    for number in range(20):
        put(queue, str(number), endings)
    clock.turn()
    clock.advance(1.0)
    assert [len(batch) for batch in slot.batches] == [4, 4]
    assert queue.depth == 12


def test_a_worker_of_two_threads_gets_a_batch_for_each_at_once_and_a_full_one_ahead(
    clock: FakeClock, endings: Endings
) -> None:
    queue = make_queue(clock, batch_size=2, handler_threads=2)
    first, second = FakeSlot(queue), FakeSlot(queue)
    for slot in (first, second):
        queue.slot_ready(slot)
    for number in range(4):
        put(queue, f"lone{number}", endings)
        clock.turn()
    assert [len(slot.batches) for slot in (first, second)] == [2, 2]  # turn by turn, each to the one that has fewer
    for number in range(5):
        put(queue, str(number), endings)
    clock.turn()
    assert [[len(batch) for batch in slot.batches] for slot in (first, second)] == [[1, 1, 2], [1, 1, 2]]
    assert queue.depth == 1


@pytest.mark.parametrize("policy", ["eager", "adaptive"])
def test_a_thread_of_a_worker_is_not_left_idle_beside_one_with_a_whole_batch(
    clock: FakeClock, endings: Endings, policy: str
) -> None:
    queue = make_queue(clock, batch_size=8, handler_threads=2, batch_policy=policy)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    for number in range(7):
        put(queue, str(number), endings)
    clock.turn()
    assert [len(batch) for batch in slot.batches] == [4, 3]


def test_an_expired_request_in_the_queue_ends_with_a_timeout_and_is_never_sent(
    clock: FakeClock, endings: Endings
) -> None:
    queue = make_queue(clock)
    queue.accept()
    put(queue, "late", endings, timeout=0.5)
    put(queue, "patient", endings)
    clock.advance(0.6)
    assert endings.kind("late") == "timeout"
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    assert [job.request.request_id for job in slot.batches[0].jobs] == ["patient"]
    assert queue.stats.expired == 1


def test_a_deadline_that_was_met_does_not_fire_later(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    put(queue, "a", endings, timeout=0.5)
    clock.turn()
    slot.answer()
    clock.advance(1.0)
    assert endings.kind("a") == "ok"
    assert queue.stats.expired == 0


def test_cancelling_a_sent_request_leaves_its_batch_mates_alone(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    gone = put(queue, "gone", endings)
    put(queue, "stays", endings)
    clock.turn()
    queue.cancel(gone)
    assert slot.cancelled == [(slot.batches[0].batch_id, 0)]
    slot.answer()
    assert endings.kind("gone") == "cancelled"
    assert endings.kind("stays") == "ok"


@pytest.mark.parametrize(("end", "kind"), [("answer", "ok"), ("die", "worker_died")])
def test_an_ending_that_cancels_its_batch_mates_leaves_their_batch_behind(
    clock: FakeClock, endings: Endings, end: str, kind: str
) -> None:
    queue = make_queue(clock, retry_on_worker_death=0)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    mates: list[Job] = []

    def takes_its_mates_along(job: Job) -> None:
        endings(job)
        for mate in mates:
            queue.cancel(mate)

    queue.put(InferenceRequest("first", [Part("body", b"x")]), takes_its_mates_along, lambda job, chunk: None)
    mates += [put(queue, "b", endings), put(queue, "c", endings)]
    clock.turn()
    getattr(slot, end)()
    assert [endings.kind(name) for name in ("first", "b", "c")] == [kind, "cancelled", "cancelled"]
    assert slot.cancelled == []
    assert not queue._abandoned
    assert queue.idle


def test_a_request_that_is_cancelled_while_it_is_put_back_is_answered_twice(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock, retry_on_worker_death=1)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    retried = put(queue, "retried", endings)

    def takes_the_other_along(job: Job) -> None:
        endings(job)
        queue.cancel(retried)

    first = queue.put(InferenceRequest("first", [Part("body", b"x")]), takes_the_other_along, lambda job, chunk: None)
    clock.turn()
    first.attempts = 1
    slot.die()
    assert [endings.kind(name) for name in ("first", "retried")] == ["worker_died", "cancelled"]
    assert queue.depth == 0
    assert queue.idle


def test_cancelled_requests_give_their_place_in_the_queue_back(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock, job_queue_size=1)
    queue.accept()
    for number in range(5):
        queue.cancel(put(queue, str(number), endings))
    assert queue.depth == 0
    assert queue.idle


@pytest.mark.parametrize("end", ["answer", "die"])
def test_a_batch_that_nobody_waits_for_does_not_keep_the_queue_busy(clock: FakeClock, endings: Endings, end) -> None:
    queue = make_queue(clock)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    put(queue, "late", endings, timeout=0.5)
    gone = put(queue, "gone", endings)
    clock.turn()
    told: list[bool] = []
    queue.on_idle = lambda: told.append(True)
    queue.cancel(gone)
    assert not queue.idle
    assert not told
    clock.advance(0.6)
    assert endings.kind("late") == "timeout"
    assert queue.idle
    assert told
    getattr(slot, end)()  # however it ends, the next batch counts as ever
    other = FakeSlot(queue, 9001)
    queue.slot_ready(other)
    put(queue, "next", endings)
    clock.turn()
    assert not queue.idle
    (slot if slot.batches else other).answer()
    assert queue.idle


def test_a_dead_workers_unstarted_requests_go_back_to_the_head_unharmed(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock, retry_on_worker_death=0)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    for number in range(10):
        put(queue, str(number), endings)
    clock.turn()
    slot.die()
    assert {name: endings.kind(name) for name in "0123"} == dict.fromkeys("0123", "worker_died")
    other = FakeSlot(queue, 9001)
    queue.slot_ready(other)
    assert [job.request.request_id for job in other.batches[0].jobs] == list("4567")


def test_a_request_that_kills_workers_takes_no_other_with_it_twice(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock)
    first = FakeSlot(queue)
    queue.slot_ready(first)
    for name in ("good", "poison", "fine"):
        put(queue, name, endings)
    clock.turn()
    first.die()
    second = FakeSlot(queue, 9001)
    queue.slot_ready(second)
    assert [job.request.request_id for job in second.answer().jobs] == ["good"]
    assert [job.request.request_id for job in second.batches[0].jobs] == ["poison"]
    second.die()
    third = FakeSlot(queue, 9002)
    queue.slot_ready(third)
    third.answer()
    assert {name: endings.kind(name) for name in ("good", "poison", "fine")} == {
        "good": "ok",
        "poison": "worker_died",
        "fine": "ok",
    }


def test_a_request_that_has_streamed_is_not_computed_again(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    put(queue, "a", endings)
    clock.turn()
    queue.item_chunk(slot.batches[0], 0, Chunk(b"first"))
    slot.die()
    assert endings.kind("a") == "worker_died"


def test_giving_up_ends_what_waits_and_refuses_what_comes_with_the_reason(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock)
    queue.accept()
    put(queue, "a", endings)
    queue.gave_up(ServeError("its handler raised ImportError"))
    assert endings.kind("a") == "not_ready"
    with pytest.raises(NoWorker, match="its handler raised ImportError"):
        put(queue, "b", endings)


def test_a_closing_slot_gets_no_more_batches_but_its_answers_count(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    put(queue, "a", endings)
    clock.turn()
    queue.slot_closing(slot)
    put(queue, "b", endings)
    clock.advance(1.0)
    assert len(slot.batches) == 1
    slot.answer()
    assert endings.kind("a") == "ok"
    assert queue.depth == 1


def test_a_protocols_failure_to_answer_does_not_cost_its_batch_mates_their_answers(
    clock: FakeClock, endings: Endings
) -> None:
    queue = make_queue(clock)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)

    def broken(job: object) -> None:
        raise RuntimeError("the connection's code has a bug")

    queue.put(InferenceRequest("broken", [Part("body", b"")]), broken, lambda job, chunk: None)
    put(queue, "mate", endings)
    clock.turn()
    slot.answer()
    assert endings.kind("mate") == "ok"


def test_an_earlier_wait_is_not_lost_behind_a_later_timer(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock, max_batch_delay_ms=500.0)
    slow, quick = FakeSlot(queue), FakeSlot(queue, 9001)
    queue.slot_ready(slow)
    queue.slot_ready(quick)
    for name in "abcdefgh":
        put(queue, name, endings)
    clock.turn()
    slow.answer(took=10.0)
    put(queue, "i", endings)
    clock.turn()  # 1 waits where 4 were answered: 2 % of 10 s
    quick.answer(took=0.1)  # now it is 2 % of 0.1 s
    clock.advance(0.0025)
    assert [len(batch) for batch in slow.batches] == [1]


def test_requests_that_were_cancelled_while_no_worker_was_free_are_not_kept(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock, job_queue_size=4)
    queue.accept()
    put(queue, "waits", endings)
    for number in range(100):
        queue.cancel(put(queue, str(number), endings))
    gc.collect()
    assert sum(type(it) is Job and it.queue is queue for it in gc.get_objects()) <= 2 * queue.depth
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    assert [job.request.request_id for job in slot.answer().jobs] == ["waits"]


def test_a_request_that_asks_for_it_is_alone_in_its_batch(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock)
    queue.accept()
    put(queue, "before", endings)
    queue.put(InferenceRequest("alone", [Part("body", b"")], alone=True), endings, lambda job, chunk: None)
    put(queue, "after", endings)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    batches = [[job.request.request_id for job in slot.answer().jobs] for _ in range(3)]
    assert batches == [["before"], ["alone"], ["after"]]


def test_a_window_opens_when_a_worker_begins_to_wait_and_not_while_all_compute(
    clock: FakeClock, endings: Endings
) -> None:
    queue = make_queue(clock, batch_policy="window", batch_size=3, max_batch_delay_ms=10.0)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    for name in "abc":
        put(queue, name, endings)
    clock.turn()
    put(queue, "d", endings)
    clock.advance(1.0)
    slot.answer()
    assert not slot.batches  # TorchServe's worker takes d now, and waits for others
    clock.advance(0.005)
    put(queue, "e", endings)
    clock.advance(0.0051)
    assert [len(batch) for batch in slot.batches] == [2]


def test_a_request_that_is_to_be_alone_does_not_wait_for_company(clock: FakeClock, endings: Endings) -> None:
    queue = make_queue(clock, batch_policy="window", max_batch_delay_ms=1000.0)
    slot = FakeSlot(queue)
    queue.slot_ready(slot)
    put(queue, "describe", endings, alone=True)
    clock.turn()
    assert [len(batch) for batch in slot.batches] == [1]
