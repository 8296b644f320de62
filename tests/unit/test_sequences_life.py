"""Sequences under everything at once: no request is lost, none overtakes another of its sequence, bounds hold."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from support.core_fakes import Endings, FakeClock, FakeSlot, make_queue, put

from mlserve.core.itemwise import capacity
from mlserve.core.job import Batch, Job
from mlserve.core.sequences import SequenceQueue
from mlserve.errors import NoWorker, QueueFull, ServeError

END = "ts_request_sequence_end"


class Recorder(FakeSlot):
    """Notes in what order the requests of each sequence were sent, and to whom."""

    def __init__(self, life: SequenceLife, worker_id: int) -> None:
        super().__init__(life.queue, worker_id)
        self.life = life

    def send(self, batch: Batch) -> None:
        super().send(batch)
        self.life.was_sent(self, batch)


class SequenceLife(RuleBasedStateMachine):
    jobs = Bundle("jobs")

    @initialize(
        policy=st.sampled_from(["adaptive", "eager", "window"]),
        batch_size=st.integers(1, 3),
        bound=st.integers(1, 3),
        mode=st.sampled_from([{}, {}, {"continuous_batching": True}, {"async_communication": True}]),
        max_age=st.sampled_from([0, 60]),
    )
    def start(self, policy: str, batch_size: int, bound: int, mode: dict[str, bool], max_age: int) -> None:
        self.clock = FakeClock()
        queue = make_queue(
            self.clock,
            sequence_batching=True,
            sequence_max_idle_ms=30,
            sequence_timeout_ms=max_age,
            max_sequence_job_queue_size=bound,
            max_num_sequence=4,
            batch_policy=policy,
            batch_size=batch_size,
            **mode,
        )
        assert isinstance(queue, SequenceQueue)
        self.queue = queue
        self.queue.accept()
        self.bound = bound
        self.room = capacity(queue.spec) if queue.spec.concurrent else 1
        self.endings = Endings()
        self.submitted: dict[str, list[str]] = defaultdict(list)  # sequence -> names in order
        self.sent: dict[str, list[str]] = defaultdict(list)
        self.slots: list[Recorder] = []
        self.workers = 9000

    def was_sent(self, slot: Recorder, batch: Batch) -> None:
        names = [job.request.sequence_id for job in batch.jobs]
        assert len(set(names)) == len(names) <= self.queue.spec.batch_size
        assert slot in self.queue.slots
        for job in batch.jobs:
            if job.request.sequence_id:
                self.sent[job.request.sequence_id].append(job.request.request_id)

    @rule(
        target=jobs,
        sequence=st.sampled_from("abcdef"),
        timeout=st.sampled_from([0.0, 0.0, 0.004, 0.05]),
        alone=st.sampled_from([False, False, False, True]),
    )
    def submit(self, sequence: str, timeout: float, alone: bool) -> Job | None:
        sequence = "" if alone else sequence
        name = f"{sequence}{sum(map(len, self.submitted.values()))}"
        try:
            job = put(self.queue, name, self.endings, timeout, sequence, alone)
        except (QueueFull, NoWorker):
            return None
        self.submitted[sequence].append(name)
        return job

    @rule(job=jobs)
    def cancel(self, job: Job | None) -> None:
        if job is not None:
            self.queue.cancel(job)

    @rule()
    def worker_comes(self) -> None:
        if len(self.slots) < 3:
            self.workers += 1
            slot = Recorder(self, self.workers)
            self.slots.append(slot)
            self.queue.slot_ready(slot)

    @rule(which=st.integers(0, 2), batch=st.integers(0, 4), ends=st.sampled_from(["", "", "a", "b;c"]))
    def worker_answers(self, which: int, batch: int, ends: str) -> None:
        if which < len(self.slots) and self.slots[which].batches:
            slot = self.slots[which]
            slot.answer(which=batch % len(slot.batches), headers=[(END, ends)] if ends else ())

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
    def bounds_hold(self) -> None:
        if not hasattr(self, "queue"):
            return
        queue = self.queue
        assert len(queue.open) <= max(4, queue.spec.batch_size * queue.spec.max_workers)
        assert queue.in_flight == sum(len(slot.batches) for slot in self.slots)
        assert all(slot.in_flight <= self.room for slot in self.slots)
        assert all(len(sequence.waiting) <= self.bound + 1 for sequence in queue.open.values())
        # Nobody waits while it could be computed: what is in no line stands behind one of its own sequence.
        assert all(s.listed or s.running for s in queue.open.values() if s.waiting)
        if not queue.spec.continuous_batching:
            running = [job.request.sequence_id for slot in self.slots for b in slot.batches for job in b.jobs]
            named = [name for name in running if name in queue.open]
            assert all(queue.open[name].running <= 1 for name in named)

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        for slot in self.slots:
            self.queue.slot_closing(slot)
            while slot.batches:
                slot.answer()
        last = Recorder(self, 1)
        self.queue.slot_ready(last)
        for _ in range(200):
            self.clock.advance(0.02)
            while last.batches:
                last.answer()
            if self.queue.idle:
                break
        assert self.queue.idle
        assert self.endings.results.keys() == {name for names in self.submitted.values() for name in names}
        for sequence, names in self.sent.items():
            assert names == [name for name in self.submitted[sequence] if name in set(names)]
        self.clock.advance(1.0)
        assert not self.queue.open


SequenceLife.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSequenceLife = SequenceLife.TestCase
