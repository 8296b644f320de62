"""The queue of a stateful model: requests of one sequence go to one worker, in order, never two in one batch.

A sequence is bound to the worker that takes its first request, and new ones go to the worker with the fewest. The
binding ends with the worker: the state is lost, requests that were being computed fail and are not computed again, and
those that wait go to another worker, whose handler sees that it does not know the sequence.

Sequences in line are counted, not requests: a worker's line holds each of its sequences that could send a request now
once, in the order in which they became able to.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as Seq

from mlserve.core.itemwise import capacity
from mlserve.core.job import QUEUED, Batch, Job
from mlserve.core.messages import BatchReport, Chunk, InferenceResponse
from mlserve.core.metrics import ModelStats
from mlserve.core.model import ModelSpec
from mlserve.core.pending import ModelQueue
from mlserve.core.policy import Decision, View
from mlserve.core.ports import Clock, Slot
from mlserve.core.sequence import Sequence, SequenceHeaders, ended_by, identify
from mlserve.errors import NoWorker, QueueFull, ServeError

log = logging.getLogger(__name__)


class _Place:
    """A worker as this queue sees it."""

    __slots__ = ("bound", "chosen", "free_since", "line", "reserved")

    def __init__(self, now: float) -> None:
        self.line: deque[Sequence] = deque()
        self.bound = 0  # open sequences
        self.chosen = 0  # the later it was given a sequence the higher
        self.free_since = now
        self.reserved = False  # has one request that nothing may run beside


class SequenceQueue(ModelQueue):
    """See the module. ``names`` are the headers that tell sequences."""

    def __init__(self, spec: ModelSpec, clock: Clock, stats: ModelStats, names: SequenceHeaders) -> None:
        super().__init__(spec, clock, stats)
        self.open: dict[str, Sequence] = {}
        self._names = names
        self._most = max(spec.max_num_sequence, spec.batch_size * spec.max_workers)
        self._limit = self._most * (spec.max_sequence_job_queue_size + 1) + spec.job_queue_size
        self._max_idle = spec.sequence_max_idle_ms / 1000.0
        self._max_age = spec.sequence_timeout_ms / 1000.0
        self._room = capacity(spec) if spec.concurrent else 1
        self._of: dict[Job, Sequence] = {}
        self._places: dict[Slot, _Place] = {}
        self._unbound: deque[Sequence] = deque()
        self._choices = 0
        if not self._max_idle:
            log.warning("model %s: sequenceMaxIdleMSec is not set, so all its requests will be refused", spec.key)

    # -- what the service calls ---------------------------------------------------------------------------------------

    def admit(self, job: Job) -> None:
        """See :class:`ModelQueue`. Raises the same, for sequences that are too many, too long or over as well."""
        request = job.request
        now = self._clock.time()
        try:  # one that is alone asks about the model, whatever the sequences are
            sequence = Sequence("", now) if request.alone else self._sequence(identify(request, self._names), now)
        except ServeError:
            if self.observer is not None:
                self.observer.asked(self.spec, request)
            raise
        super().admit(job)
        self._jobs.pop()  # it waits in its sequence
        if sequence.id and sequence.id not in self.open:
            self.open[sequence.id] = sequence
            self._arm(sequence, now + self._max_age if self._max_age else 0.0)
        sequence.waiting.append(job)
        self._of[job] = sequence
        self._list(sequence)

    def close(self, reason: str, detail: str = "") -> None:
        """See :class:`ModelQueue`. Every sequence is over."""
        self.refuse(reason)
        for sequence in {*self.open.values(), *self._of.values()}:
            self._drop(sequence, NoWorker(reason, detail=detail))
        super().close(reason, detail)

    # -- what the engine calls ----------------------------------------------------------------------------------------

    def slot_ready(self, slot: Slot) -> None:
        """See ``SlotEvents``."""
        self._places[slot] = _Place(self._clock.time())
        super().slot_ready(slot)

    def slot_closing(self, slot: Slot) -> None:
        """See ``SlotEvents``. What it had open goes on elsewhere."""
        place = self._places.pop(slot, None)
        if place is not None:
            for sequence in place.line:
                sequence.listed = False
            bound = [sequence for sequence in self.open.values() if sequence.slot is slot]
            for sequence in bound:
                sequence.slot = None
            for sequence in (*place.line, *bound):
                self._list(sequence)
        super().slot_closing(slot)

    def slot_lost(self, slot: Slot, started: Seq[Batch], unstarted: Seq[Batch], error: ServeError) -> None:
        """See ``SlotEvents``. Nothing is computed again: what came before it in its sequence is not there any more."""
        self.in_flight -= len(started) + len(unstarted)
        self._abandoned.difference_update(started, unstarted)
        touched = [self._returned(job) for batch in (*started, *unstarted) for job in batch.jobs]
        for batch in (*started, *unstarted):
            for job in batch.jobs:
                self._finish(job, error)
        self.slot_closing(slot)
        self._settle(touched)
        self._pump()
        self._check_idle()

    def batch_done(
        self, slot: Slot, batch: Batch, results: Seq[InferenceResponse | ServeError], report: BatchReport
    ) -> None:
        """See ``SlotEvents``."""
        place = self._places.get(slot)
        if place is not None:
            place.reserved = False
            place.free_since = self._clock.time()
        touched = [self._returned(job) for job in batch.jobs]
        for result in results:
            if isinstance(result, InferenceResponse) and result.headers:
                self._end(result.headers)
        self._settle(touched)
        super().batch_done(slot, batch, results, report)

    def item_chunk(self, batch: Batch, index: int, chunk: Chunk) -> None:
        """See ``SlotEvents``."""
        if chunk.headers:
            self._end(chunk.headers)
        super().item_chunk(batch, index, chunk)

    # -- the life of a sequence ---------------------------------------------------------------------------------------

    def _sequence(self, sequence_id: str, now: float) -> Sequence:
        """The sequence with room for one more request; a new one is not open yet. Raises if there is none."""
        if not self._max_idle:
            raise self._refused(NoWorker(f"{self._name} takes no sequences: its sequenceMaxIdleMSec is not set"))
        sequence = self.open.get(sequence_id)
        if sequence is None:
            if len(self.open) >= self._most:
                raise self._refused(
                    QueueFull(
                        f"{self._name} has {self._most} open sequences already. End one, or raise maxNumSequence",
                        retry_after=1.0,
                    )
                )
            return Sequence(sequence_id, now)
        if sequence.expired:
            raise self._refused(NoWorker(f"{self._name}: sequence {sequence_id} has expired (sequenceTimeoutMSec)"))
        # The request that is next, or being computed, does not count: it waits for a worker, not in the sequence.
        most = self.spec.max_sequence_job_queue_size + (not sequence.running)
        if len(sequence.waiting) >= most:
            raise self._refused(
                QueueFull(
                    f"{self._name}: sequence {sequence_id} has {len(sequence.waiting)} requests waiting already. "
                    "Wait for an answer, or raise maxSequenceJobQueueSize",
                    retry_after=1.0,
                )
            )
        return sequence

    @property
    def _name(self) -> str:
        return f'Model "{self.spec.key.name}"'

    def _end(self, headers: Seq[tuple[str, str]]) -> None:
        """The handler ends sequences: in continuous batching only, where alone it knows which."""
        if not self.spec.continuous_batching:
            return
        for sequence_id in ended_by(headers, self._names.end):
            sequence = self.open.get(sequence_id)
            if sequence is not None:
                self._drop(sequence, NoWorker(f"{self._name}: sequence {sequence_id} is closed"))

    def _drop(self, sequence: Sequence, error: ServeError) -> None:
        """Close a sequence and refuse what waits in it; what is being computed is still answered."""
        sequence.closed = True
        sequence.disarm()
        if self.open.get(sequence.id) is sequence:
            del self.open[sequence.id]
            place = self._places.get(sequence.slot) if sequence.slot is not None else None
            if place is not None:
                place.bound -= 1
        waiting, sequence.waiting = sequence.waiting, deque()
        self.depth -= len(waiting)
        for job in waiting:
            del self._of[job]
            self._finish(job, error)

    def _returned(self, job: Job) -> Sequence:
        sequence = self._of.pop(job)
        sequence.running -= 1
        return sequence

    def _settle(self, sequences: Iterable[Sequence]) -> None:
        """Something of these has ended: let the next request follow, or the idle time begin."""
        for sequence in sequences:
            if sequence.closed or not sequence.id:
                continue
            if not sequence.idle:
                self._list(sequence)
            elif sequence.expired:
                self._drop(sequence, NoWorker(""))
            else:
                sequence.idle_since = self._clock.time()
                self._arm(sequence, sequence.idle_since + self._max_idle)

    def _arm(self, sequence: Sequence, when: float) -> None:
        """Look after the sequence at ``when`` (0: never), or before: an earlier look arms the next one."""
        if not when or (sequence.timer is not None and sequence.timer[0] <= when):
            return
        sequence.disarm()
        sequence.timer = when, self._clock.call_later(when - self._clock.time(), self._look, sequence)

    def _look(self, sequence: Sequence) -> None:
        sequence.timer = None
        now = self._clock.time()
        over = sequence.opened + self._max_age if self._max_age else 0.0
        if over and now >= over:
            sequence.expired = True
        if not sequence.idle:
            self._arm(sequence, 0.0 if sequence.expired else over)
            return
        until = sequence.idle_since + self._max_idle
        if sequence.expired or now >= until:
            self._drop(sequence, NoWorker(""))
        else:
            self._arm(sequence, min(until, over) if over else until)

    # -- sending ------------------------------------------------------------------------------------------------------

    def _end_early(self, job: Job, error: ServeError) -> None:
        if job.state != QUEUED:
            super()._end_early(job, error)
            return
        sequence = self._of.pop(job)
        sequence.waiting.remove(job)
        super()._end_early(job, error)
        self._settle([sequence])

    def _tickets(self) -> int:
        return sum(max(0, self._room - slot.in_flight) for slot in self.slots)

    def _list(self, sequence: Sequence) -> None:
        """Stand in line, if a request of the sequence could be sent now.

        While one is being computed the next waits, except in continuous batching: there it may join at the next step.
        """
        follows = self.spec.continuous_batching and sequence.slot is not None
        if sequence.listed or not sequence.waiting or (sequence.running and not follows):
            return
        sequence.listed = True
        place = self._places.get(sequence.slot) if sequence.slot is not None else None
        (self._unbound if place is None else place.line).append(sequence)

    def _pump(self) -> None:
        self._bind()
        for slot, place in self._places.items():
            while slot.in_flight < self._room and not place.reserved and self._send_from(slot, place):
                pass

    def _bind(self) -> None:
        """Give sequences without a worker to those that could take a request now, the least burdened first."""
        while self._unbound:
            free = [slot for slot, place in self._places.items() if slot.in_flight < self._room and not place.reserved]
            if not free:
                return
            sequence = self._unbound.popleft()
            sequence.listed = False
            if not sequence.waiting:  # cancelled
                continue
            slot = min(free, key=self._burden)
            place = self._places[slot]
            if sequence.id:
                self._choices += 1
                place.bound, place.chosen, sequence.slot = place.bound + 1, self._choices, slot
            sequence.listed = True
            place.line.append(sequence)

    def _burden(self, slot: Slot) -> tuple[int, int]:
        place = self._places[slot]
        return place.bound, place.chosen

    def _send_from(self, slot: Slot, place: _Place) -> bool:
        """Send what the policy says. False when nothing was sent."""
        line = place.line
        while line and not line[0].waiting:
            line.popleft().listed = False
        if not line:
            return False
        now = self._clock.time()
        first = line[0].waiting[0]
        if self.spec.concurrent:
            exclusive = first.alone and self.spec.continuous_batching
            if exclusive and slot.in_flight:
                return False
            place.reserved = exclusive
            self._send_first(slot, line, 1, now)
            return True
        view = View(len(line), now - max(first.arrived, place.free_since), 1, 0, oldest=now - first.arrived)
        decision = Decision(1) if first.alone else self.policy.decide(view)
        if decision.take:
            self._send_first(slot, line, decision.take, now)
        elif decision.wait is not None:
            self._wake_at(now + decision.wait)
        return decision.take > 0

    def _send_first(self, slot: Slot, line: deque[Sequence], most: int, now: float) -> None:
        """Send the next request of each of the first ``most`` sequences in line."""
        picked: list[Job] = []
        again: list[Sequence] = []
        while line and len(picked) < most:
            sequence = line[0]
            if sequence.waiting and sequence.waiting[0].alone and picked:
                break
            line.popleft().listed = False
            if not sequence.waiting:
                continue
            picked.append(sequence.waiting.popleft())
            sequence.running += 1
            again.append(sequence)
            if picked[-1].alone:
                break
        self._dispatch(slot, picked, now)
        for sequence in again:
            self._list(sequence)
