"""The property above all: every submitted request gets exactly one ending, whatever happens in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from support.core_fakes import Endings, FakeClock, FakeSlot, make_queue, put

from mlserve.core.job import Job
from mlserve.core.messages import InferenceRequest, Part
from mlserve.errors import NoWorker, QueueFull, ServeError


class QueueLife(RuleBasedStateMachine):
    """Requests come, expire and are cancelled while workers come, answer, drain and die."""

    jobs = Bundle("jobs")

    @initialize(
        policy=st.sampled_from(["adaptive", "bucket", "eager", "window"]),
        batch_size=st.integers(1, 5),
        retries=st.integers(0, 2),
        mode=st.sampled_from([{}, {}, {"continuous_batching": True}, {"async_communication": True}]),
    )
    def start(self, policy: str, batch_size: int, retries: int, mode: dict[str, bool]) -> None:
        self.clock = FakeClock()
        self.queue = make_queue(
            self.clock,
            batch_policy=policy,
            batch_size=batch_size,
            retry_on_worker_death=retries,
            job_queue_size=12,
            **mode,
        )
        self.most = 2 if not mode else batch_size if "continuous_batching" in mode else 1000
        self.queue.accept()
        self.endings = Endings()
        self.submitted: set[str] = set()
        self.slots: list[FakeSlot] = []
        self.workers = 9000

    @rule(target=jobs, timeout=st.sampled_from([0.0, 0.0, 0.004, 0.05]), alone=st.sampled_from([False, False, True]))
    def submit(self, timeout: float, alone: bool) -> Job | None:
        name = str(len(self.submitted))
        try:
            job = put(self.queue, name, self.endings, timeout, alone=alone)
        except (QueueFull, NoWorker):
            return None
        self.submitted.add(name)
        return job

    @rule(job=jobs)
    def cancel(self, job: Job | None) -> None:
        if job is not None:
            self.queue.cancel(job)

    @rule()
    def worker_comes(self) -> None:
        if len(self.slots) < 3:
            self.workers += 1
            self.slots.append(FakeSlot(self.queue, self.workers))
            self.queue.slot_ready(self.slots[-1])

    @rule(which=st.integers(0, 2), batch=st.integers(0, 4))
    def worker_answers(self, which: int, batch: int) -> None:
        if which < len(self.slots) and self.slots[which].batches:
            slot = self.slots[which]
            slot.answer(which=batch % len(slot.batches) if self.queue.spec.concurrent else 0)

    @rule(which=st.integers(0, 2))
    def worker_dies(self, which: int) -> None:
        if which < len(self.slots):
            self.slots.pop(which).die()

    @rule(which=st.integers(0, 2))
    def worker_drains(self, which: int) -> None:
        if which < len(self.slots):
            self.queue.slot_closing(self.slots[which])

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.02, 0.1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def engine_gives_up(self) -> None:
        if not self.slots:
            self.queue.gave_up(ServeError("no worker comes up"))
            self.queue.accept()

    @invariant()
    def the_books_balance(self) -> None:
        if not hasattr(self, "queue"):
            return
        sent = sum(len(slot.batches) for slot in self.slots)
        assert self.queue.in_flight == sent
        assert self.queue.depth >= 0
        for slot in self.slots:
            assert slot.in_flight <= self.most
            if self.queue.spec.continuous_batching:
                assert slot.in_flight == 1 or not any(job.alone for batch in slot.batches for job in batch.jobs)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        for slot in self.slots:
            self.queue.slot_closing(slot)
            while slot.batches:
                slot.answer()
        last = FakeSlot(self.queue, 1)
        self.queue.slot_ready(last)
        for _ in range(200):
            self.clock.advance(0.02)
            while last.batches:
                last.answer()
            if self.queue.idle:
                break
        assert self.endings.results.keys() == self.submitted
        assert self.queue.idle


QueueLife.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestQueueLife = QueueLife.TestCase


@pytest.mark.parametrize("sequences", [False, True])
def test_a_queue_that_closes_is_idle_whatever_its_endings_cancel(sequences: bool) -> None:
    queue = make_queue(FakeClock(), sequence_batching=sequences, sequence_max_idle_ms=1000)
    queue.accept()
    jobs: list[Job] = []

    def leave(job: Job) -> None:
        for other in jobs:
            queue.cancel(other)

    for number in range(3):
        sequence = str(number) if sequences else ""
        request = InferenceRequest(str(number), [Part("body", b"x")], sequence_id=sequence)
        jobs.append(queue.put(request, leave, lambda job, chunk: None))
    queue.close("gone")
    assert (queue.depth, queue.idle) == (0, True)
