"""Sequences of a stateful model: who may come, where they go, in what order, and when they are over."""

from __future__ import annotations

from typing import Any

import pytest
from support.core_fakes import Endings, FakeClock, FakeSlot, make_queue, put

from mlserve.core.messages import InferenceRequest, Like, Part
from mlserve.core.sequence import SEQUENCE_HEADERS, SequenceHeaders, ended_by, identify
from mlserve.core.sequences import SequenceQueue
from mlserve.errors import NoWorker, QueueFull


class Rig:
    """A sequence queue with workers; answers are collected in ``endings``."""

    def __init__(self, workers: int = 1, **spec: Any) -> None:
        self.clock = FakeClock()
        defaults = {"sequence_batching": True, "sequence_max_idle_ms": 1000, "max_workers": workers, "batch_size": 2}
        made = make_queue(self.clock, **{**defaults, **spec})
        assert isinstance(made, SequenceQueue)
        self.queue = made
        self.endings = Endings()
        self.slots = [FakeSlot(self.queue, 9000 + number) for number in range(workers)]
        for slot in self.slots:
            self.queue.slot_ready(slot)

    def put(self, *names: str) -> None:
        """``a1`` is a request of sequence ``a``."""
        for name in names:
            put(self.queue, name, self.endings, sequence=name[0])
        self.clock.turn()

    def batches(self, which: int = 0) -> list[str]:
        return [" ".join(job.request.request_id for job in batch.jobs) for batch in self.slots[which].batches]


def test_two_requests_of_a_sequence_are_never_in_one_batch() -> None:
    rig = Rig(max_sequence_job_queue_size=5, batch_size=4)
    rig.put("a1", "a2", "b1", "a3", "b2")
    assert rig.batches() == ["a1 b1"]
    rig.slots[0].answer()
    assert rig.batches() == ["a2 b2"]
    rig.slots[0].answer()
    assert rig.batches() == ["a3"]


def test_a_sequence_stays_with_the_worker_that_has_its_state() -> None:
    rig = Rig(2)
    rig.put("a1")
    rig.slots[0].answer()
    rig.put("b1")
    assert rig.batches(1) == ["b1"]
    rig.put("a2")
    rig.slots[1].answer()
    rig.put("b2")
    assert rig.batches(0) == ["a2"]
    assert rig.batches(1) == ["b2"]


def test_a_busy_worker_is_waited_for_by_its_own_sequences_only() -> None:
    rig = Rig(2, batch_size=1)
    rig.put("a1")
    rig.slots[0].answer()
    rig.put("a2", "a3", "b1")
    assert (rig.batches(0), rig.batches(1)) == (["a2"], ["b1"])
    rig.slots[1].answer()
    assert rig.batches(1) == []


def test_more_sequences_than_there_may_be_are_refused() -> None:
    rig = Rig(max_num_sequence=1)  # but a full batch of each worker is always allowed: 2
    rig.put("a1", "b1")
    with pytest.raises(QueueFull, match="maxNumSequence"):
        rig.put("c1")
    rig.put("a2")
    assert rig.queue.depth == 1
    assert rig.queue.stats.rejections["overloaded"] == 1


def test_the_queue_of_one_sequence_has_a_bound_of_its_own() -> None:
    rig = Rig(max_sequence_job_queue_size=2)
    rig.put("a1", "a2", "a3")
    with pytest.raises(QueueFull, match="maxSequenceJobQueueSize"):
        rig.put("a4")
    rig.put("b1")


def test_an_idle_sequence_makes_room_for_another() -> None:
    rig = Rig(batch_size=1, max_num_sequence=1)
    rig.put("a1")
    rig.clock.advance(5.0)  # being computed is not being idle
    rig.slots[0].answer()
    rig.clock.advance(0.9)
    rig.put("a2")
    rig.slots[0].answer()
    rig.clock.advance(0.9)
    with pytest.raises(QueueFull):
        rig.put("b1")
    rig.clock.advance(0.2)
    assert not rig.queue.open
    rig.put("b1")


def test_a_sequence_that_is_too_old_is_over_once_it_has_been_answered() -> None:
    rig = Rig(2, sequence_timeout_ms=3000)
    for _ in range(5):
        rig.put(f"a{len(rig.endings.results)}")
        rig.slots[0].answer()
        rig.clock.advance(0.5)
    rig.put("a5")
    rig.clock.advance(0.6)
    with pytest.raises(NoWorker, match="expired"):
        rig.put("a6")
    rig.slots[0].answer()
    assert rig.endings.kind("a5") == "ok"
    assert not rig.queue.open
    rig.put("a7")  # a new one of that name, and it goes where no sequence has gone for longer
    assert rig.batches(1) == ["a7"]


def test_what_was_computed_on_a_dead_worker_fails_and_the_rest_goes_elsewhere() -> None:
    rig = Rig(2, batch_size=1)
    rig.put("a1", "a2")
    rig.slots[0].die()
    assert rig.endings.kind("a1") == "worker_died"
    assert rig.batches(1) == ["a2"]


def test_a_draining_worker_answers_before_the_sequence_moves() -> None:
    rig = Rig(2)
    rig.put("a1", "a2")
    rig.queue.slot_closing(rig.slots[0])
    assert rig.batches(1) == []
    rig.slots[0].answer()
    assert rig.batches(1) == ["a2"]


def test_cancelled_and_expired_requests_leave_the_line() -> None:
    rig = Rig(batch_size=1, max_sequence_job_queue_size=3)
    rig.put("a1", "a2")
    job = put(rig.queue, "a3", rig.endings, sequence="a")
    put(rig.queue, "a4", rig.endings, timeout=0.1, sequence="a")
    rig.queue.cancel(job)
    rig.clock.advance(0.2)
    assert (rig.endings.kind("a3"), rig.endings.kind("a4")) == ("cancelled", "timeout")
    rig.slots[0].answer()
    rig.slots[0].answer()
    assert rig.queue.idle


def test_a_window_collects_from_the_moment_the_worker_is_free() -> None:
    rig = Rig(batch_policy="window", max_batch_delay_ms=10.0, batch_size=3)
    rig.put("a1")
    assert rig.batches() == []
    rig.clock.advance(0.005)
    rig.put("b1")
    rig.clock.advance(0.0051)
    assert rig.batches() == ["a1 b1"]


def test_in_continuous_batching_the_next_of_a_sequence_joins_and_the_handler_ends_it() -> None:
    rig = Rig(continuous_batching=True, batch_size=1, max_sequence_job_queue_size=5)
    rig.put("a1", "a2", "a3")
    assert rig.batches() == ["a1", "a2"]  # twice the batch size
    rig.slots[0].answer(which=1, headers=[("ts_request_sequence_end", "x; a ;")])
    assert not rig.queue.open
    assert rig.endings.kind("a3") == "not_ready"
    rig.slots[0].answer()
    assert rig.endings.kind("a1") == "ok"
    rig.put("b1")
    assert rig.batches() == ["b1"]


def test_without_continuous_batching_only_time_ends_a_sequence() -> None:
    rig = Rig()
    rig.put("a1")
    rig.slots[0].answer(headers=[("ts_request_sequence_end", "a")])
    assert set(rig.queue.open) == {"a"}


def test_a_model_without_an_idle_limit_refuses_and_says_why() -> None:
    rig = Rig(sequence_max_idle_ms=0)
    with pytest.raises(NoWorker, match="sequenceMaxIdleMSec"):
        rig.put("a1")


def test_a_request_about_the_model_is_alone_and_belongs_to_no_sequence() -> None:
    rig = Rig()
    put(rig.queue, "describe", rig.endings, alone=True)
    rig.put("a1")
    assert rig.batches() == ["describe"]
    assert set(rig.queue.open) == {"a"}
    rig.slots[0].answer()
    assert rig.batches() == ["a1"]


def test_when_the_model_goes_everything_that_waits_is_answered() -> None:
    rig = Rig(batch_size=1, max_num_sequence=2)
    rig.put("a1", "a2", "b1")
    rig.queue.close("it was unregistered")
    assert (rig.endings.kind("a2"), rig.endings.kind("b1")) == ("not_ready", "not_ready")
    rig.slots[0].answer()
    assert rig.endings.kind("a1") == "ok"
    assert rig.queue.idle


def request(headers: list[tuple[bytes, bytes]], sequence_id: str = "") -> InferenceRequest:
    return InferenceRequest("r", [Part("body", b"")], tuple(headers), sequence_id=sequence_id)


def test_a_request_without_a_sequence_starts_one_that_the_handler_can_see() -> None:
    asked = request([(b"accept", b"*/*")])
    made = identify(asked, SEQUENCE_HEADERS)
    assert made.startswith("ts-seq-")
    assert asked.sequence_id == made
    assert list(asked.headers)[1:] == [
        (b"ts_request_sequence_start", b"true"),
        (b"ts_request_sequence_id", made.encode()),
    ]
    assert identify(request([]), SEQUENCE_HEADERS) != made


def test_the_sequence_is_told_by_a_header_in_any_case_or_by_the_protocol() -> None:
    names = SequenceHeaders("X-Session", "X-Start", "X-End")
    exact = request([(b"X-Session", b"s1")])
    assert identify(exact, names) == "s1"
    assert exact.headers == ((b"X-Session", b"s1"),)
    lower = request([(b"x-session", b"s2")])
    assert identify(lower, names) == "s2"
    assert (b"X-Session", b"s2") in lower.headers
    carried = request([], "s3")
    assert identify(carried, names) == "s3"
    assert list(carried.headers) == [(b"X-Session", b"s3")]


def test_one_header_can_end_several_sequences() -> None:
    assert ended_by([("a", "x"), ("TS_Request_Sequence_End", " s1;s2 ;; ")], SEQUENCE_HEADERS.end) == ["s1", "s2"]


def test_a_sequence_that_begins_does_not_lose_its_body_s_content_type() -> None:
    for headers in ([], [(b"TS_REQUEST_SEQUENCE_ID", b"s1")]):
        asked = InferenceRequest("r", None, headers, like=Like("application/json"), data=b"{}")
        identify(asked, SEQUENCE_HEADERS)
        [part] = asked.parts
        assert (part.data, part.content_type) == (b"{}", "application/json")
