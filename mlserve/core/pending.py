"""The queue of one model version: admission, batching, expiry, cancelling, and what happens when a worker dies.

Everything runs on the event loop. ``put`` and the engine's callbacks change the state and then *pump*: ask the policy,
send what it says, arm one timer if it says to wait. ``put`` pumps once per loop turn instead of once per request, so
that requests which arrive in the same turn can leave in the same batch.

Jobs that end while queued (cancelled, expired) stay in the deque and are skipped when they reach its head: removing
each from the middle would cost O(n) per abort, and an abort storm is when that hurts. They are swept out once they are
more than the live ones, which ``depth`` counts: they hold the bodies of their requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from mlserve.core.job import DONE, QUEUED, SENT, Batch, CallbackJob, Job
from mlserve.core.messages import BatchReport, Chunk, InferenceRequest, InferenceResponse
from mlserve.core.metrics import ModelStats, status_of
from mlserve.core.model import ModelSpec
from mlserve.core.observing import Observer
from mlserve.core.policies import make_policy
from mlserve.core.policy import EARLY, View
from mlserve.core.ports import Cancellable, Clock, Slot
from mlserve.core.refusals import no_ticket, no_worker, queue_full
from mlserve.core.waiting import Waiting
from mlserve.errors import ErrorKind, NoWorker, ServeError

BULKY: Final = 64 << 10  # bytes of a request that take longer to copy than a batch costs by itself
BULK: Final = 2 << 20  # bytes, which a core's own cache holds: echo of 1 MiB 8 % faster than with 8 in a batch
AHEAD: Final = 1  # batches that wait in a worker beside those it computes: 89,000 -> 145,000 req/s on a no-op
_BATCH_IDS: Final = 0xFFFF_FFFF


class ModelQueue:
    """Requests waiting for one model version, and the slots that serve them. Implements ``SlotEvents``."""

    def __init__(self, spec: ModelSpec, clock: Clock, stats: ModelStats) -> None:
        self.spec = spec
        self.policy = make_policy(spec)
        self.stats = stats
        self.depth = 0  # live requests in the queue
        self.in_flight = 0  # batches sent and not answered
        self._abandoned: set[Batch] = set()  # those of them whose requests have all ended otherwise
        self.slots: list[Slot] = []
        self.was_ready = False  # has had a slot once
        self.on_idle: Callable[[], object] | None = None  # set by whoever waits for the queue to drain
        self.observer: Observer | None = None
        self.on_slots: Callable[[], object] | None = None  # called when a slot came or went
        self.on_gave_up: Callable[[ServeError], object] | None = None  # called when no slot will come any more
        self._clock = clock
        self._now = clock.time
        self._jobs = Waiting()
        self._waits_now = self._waits  # bound once
        self._limit = spec.job_queue_size
        self._at_once = spec.handler_threads  # batches that one worker computes
        self._special = bool(spec.use_job_ticket or spec.client_timeout_ms)  # one test for the many that use neither
        self._refusal = no_worker(spec)  # why nothing is queued; empty while it is
        self._scheduled = False
        self._timer: Cancellable | None = None
        self._timer_at = 0.0
        self._batch_id = 0
        self._expected = 0  # requests there would be if all clients of the batch answered last asked again
        self._took = 0.0  # the handler's seconds for it
        self._carried = False  # whether it was longer on its way than in a handler that takes next to no time
        self._answered = 0.0  # when that was
        self._answered_before = 0.0  # when the batch before was answered
        self._all_busy = False
        self._free_since = 0.0  # when a worker began to wait for the next batch

    # -- what the service calls ---------------------------------------------------------------------------------------

    def put(
        self,
        request: InferenceRequest,
        on_done: Callable[[Job], object],
        on_chunk: Callable[[Job, Chunk], object],
    ) -> Job:
        """As :meth:`admit`, for somebody who is to be called."""
        job = CallbackJob(request, on_done, on_chunk)
        self.admit(job)
        return job

    def admit(self, job: Job) -> None:
        """Queue a request. Raises :class:`QueueFull`, or :class:`NoWorker` when none is there or coming."""
        request = job.request
        if self.observer is not None:
            self.observer.asked(self.spec, request)
        if self._refusal:
            raise self._refused(NoWorker(self._refusal))
        if self.depth >= self._limit:
            raise self._refused(queue_full(self.spec))
        if self._special:
            self._check_special(request)
        job.queue, job.arrived, job.submitted = self, self._now(), True
        if request.timeout:
            job.timer = self._clock.call_later(request.timeout, self._expire, job)
        self._jobs.append(job)
        self.depth += 1
        if not self._scheduled:
            self._scheduled = True
            self._clock.call_soon(self._turn)

    def cancel(self, job: Job) -> None:
        """Nobody waits for this job any more. In a worker, its batch mates go on undisturbed."""
        if job.state != DONE:
            self.stats.cancelled += 1
            self._end_early(job, ServeError("The client went away before the answer", kind=ErrorKind.CANCELLED))

    def accept(self) -> None:
        """Workers are there or on their way: queue from now on."""
        self._refusal = ""

    def refuse(self, reason: str) -> None:
        """Queue nothing from now on and say ``reason``; what is queued stays."""
        self._refusal = reason

    def gave_up(self, error: ServeError) -> None:
        """The last worker failed for good: as :meth:`close`, with the reason, and whoever asked to know is told."""
        self.close(f'Model "{self.spec.key.name}" has no worker left: {error.message}', error.detail)
        if self.on_gave_up is not None:
            self.on_gave_up(error)

    def close(self, reason: str, detail: str = "") -> None:
        """No worker will come: refuse new requests and end those that wait, and say ``reason``."""
        self.refuse(reason)
        waiting, self._jobs = self._jobs, Waiting()
        for job in waiting:
            if job.state != DONE:
                self._finish(job, NoWorker(reason, detail=detail))
        self.depth = 0  # not before: one job's ending may cancel another, which counts it down
        self._check_idle()

    @property
    def idle(self) -> bool:
        """True when nothing is queued and nothing is being computed that somebody waits for."""
        return not self.depth and self.in_flight == len(self._abandoned)

    # -- what the engine calls ----------------------------------------------------------------------------------------

    def slot_ready(self, slot: Slot) -> None:
        """See ``SlotEvents``."""
        self.slots.append(slot)
        self.was_ready = True
        self.accept()
        self._pump()
        if self.on_slots is not None:
            self.on_slots()

    def worker_loaded(self, worker_id: int, seconds: float, metrics: Sequence[Any]) -> None:
        """See ``SlotEvents``."""
        self.stats.custom.extend(metrics)
        if self.observer is not None:
            self.observer.loaded(self.spec, worker_id, seconds, metrics)

    def load_failed(self, metrics: Sequence[Any]) -> None:
        """See ``SlotEvents``."""
        self.stats.custom.extend(metrics)
        if self.observer is not None:
            self.observer.load_failed(self.spec, metrics)

    def slot_closing(self, slot: Slot) -> None:
        """See ``SlotEvents``."""
        if slot in self.slots:
            self.slots.remove(slot)
            if self.on_slots is not None:
                self.on_slots()

    def slot_lost(self, slot: Slot, started: Sequence[Batch], unstarted: Sequence[Batch], error: ServeError) -> None:
        """Put back what was not being computed; retry what was, as often as the model allows; fail the rest.

        A retried job is sent alone: if it is what kills workers, it shall not take other requests with it again.
        """
        self.in_flight -= len(started) + len(unstarted)
        self._abandoned.difference_update(started, unstarted)
        back: list[Job] = []
        for batch in (*started, *unstarted):
            batch.slot = None
        for batch in started:
            for job in batch.jobs:
                if job.state == DONE:
                    continue
                job.attempts += 1
                if job.streaming or job.attempts > self.spec.retry_on_worker_death:
                    self._finish(job, error)
                else:
                    self.stats.retries += 1
                    back.append(job)
        back += [job for batch in unstarted for job in batch.jobs]
        back = [job for job in back if job.state != DONE]  # one job's ending may have cancelled another
        for job in back:
            job.state, job.batch, job.sent = QUEUED, None, 0.0
        self._jobs.put_back(back)
        self.depth += len(back)
        self.slot_closing(slot)
        self._pump()
        self._check_idle()

    def batch_done(
        self, slot: Slot, batch: Batch, results: Sequence[InferenceResponse | ServeError], report: BatchReport
    ) -> None:
        """See ``SlotEvents``."""
        jobs, size = batch.jobs, len(batch.jobs)
        self.in_flight -= 1
        self._abandoned.discard(batch)
        batch.slot = None  # one job's ending may cancel another: the worker has nothing left to cancel
        self._expected = self.depth + size
        self._took = report.preprocess + report.inference + report.postprocess
        self._carried = report.inference < min(report.transfer, EARLY)
        now = self._now()
        self._answered_before, self._answered = self._answered, now
        self.policy.answered(size, now - batch.sent - report.waited, now)
        self.stats.batch_done(size, report.inference)
        if report.metrics:
            self.stats.custom.extend(report.metrics)
        if self.observer is not None:
            self.observer.computed(self.spec, batch, results, report)
        report.batch_size = size
        if len(results) != size:
            raise ValueError(f"{len(results)} results for a batch of {size}")
        answers = results if isinstance(results, list) else [*results]
        for index, job in enumerate(jobs):
            if job.state == SENT:
                job.report = report
                self._finish(job, answers[index], now)
        self._pump()
        self._check_idle()

    def item_chunk(self, batch: Batch, index: int, chunk: Chunk) -> None:
        """See ``SlotEvents``."""
        job = batch.jobs[index]
        if job.state == SENT:
            job.streaming = True
            self.stats.chunks += 1
            job.on_chunk(chunk)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _refused(self, error: ServeError) -> ServeError:
        self.stats.rejected(error.kind.value)
        return error

    def _check_special(self, request: InferenceRequest) -> None:
        if self.spec.use_job_ticket and self.depth >= self._tickets():
            raise self._refused(no_ticket(self.spec))
        if not request.timeout:
            request.timeout = self.spec.client_timeout_ms / 1000.0

    def _tickets(self) -> int:
        """How many requests could be sent now, each to a worker that waits for one."""
        return sum(max(0, self._at_once - slot.in_flight) for slot in self.slots)

    def _finish(self, job: Job, result: InferenceResponse | ServeError, now: float | None = None) -> None:
        if now is None:
            now = self._now()
        if job.finish(result, now):
            queued, took = job.queued_for, now - job.arrived
            self.stats.request_done(status_of(result), queued, took)
            if self.observer is not None:
                self.observer.answered(job, queued, took)

    def _end_early(self, job: Job, error: ServeError) -> None:
        state, batch = job.state, job.batch
        self._finish(job, error)
        if state == QUEUED:
            self.depth -= 1
            self._sweep()
            self._check_idle()
        elif batch is not None and batch.slot is not None:
            batch.slot.cancel(batch, job.index)
            if all(one.state == DONE for one in batch.jobs):
                self._abandoned.add(batch)
                self._check_idle()

    def _sweep(self) -> None:
        if len(self._jobs) > 2 * self.depth:
            self._jobs.keep([job for job in self._jobs if job.state != DONE])

    def _check_idle(self) -> None:
        if self.on_idle is not None and self.idle:
            self.on_idle()

    def _expire(self, job: Job) -> None:
        seconds = job.request.timeout
        where = "in the queue" if job.state == QUEUED else "in the worker"
        message = f"The request's deadline of {seconds:g} s passed while it was {where}"
        self.stats.expired += 1
        self._end_early(job, ServeError(message, kind=ErrorKind.TIMEOUT))

    def _turn(self) -> None:
        self._scheduled = False
        self._pump()

    def _wake_at(self, when: float) -> None:
        """Pump at ``when``, or earlier: a timer that is due before does as well, and asks again."""
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._clock.call_later(when - self._now(), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._pump()

    def _pump(self) -> None:
        """Send batches for as long as the policy says so."""
        jobs = self._jobs
        while self.depth and self.slots:
            first = jobs.first()
            while first.state == DONE:
                jobs.popleft()
                first = jobs.first()
            slot, idle, room = self._best_slot()
            now = self._now()
            if not idle:
                self._all_busy = True
            elif self._all_busy:
                self._all_busy, self._free_since = False, now
            if slot is None:
                return
            there, since, quiet = first.arrived, self._free_since, now - self._answered
            age = now - (there if there > since else since)
            old, took, workers, free = now - there, self._took, len(self.slots), self._at_once - slot.in_flight
            size = first.request.size if self._carried else 0
            bulk = max(1, BULK // size) if size >= BULKY else 0
            view = View(
                self.depth, age, idle, room, self._expected, took, quiet, old, self._waits_now, workers, free, bulk
            )
            decision = self.policy.decide(view)
            if not decision.take:
                if idle and first.alone:  # nothing can join it
                    self._send(slot, 1, now)
                    continue
                if decision.wait is not None:
                    self._wake_at(now + decision.wait)
                return
            self._send(slot, decision.take, now)

    def _best_slot(self) -> tuple[Slot | None, int, int]:
        """The slot to send to (an idle one if there is one), and how many are idle and how many have room."""
        idle = room = 0
        best: Slot | None = None
        fewest = at_once = self._at_once
        most = fewest + AHEAD
        for slot in self.slots:
            busy = slot.in_flight
            if busy >= most:
                continue
            if busy < at_once:
                idle += 1
            else:
                room += 1
            if best is None or busy < fewest:
                best, fewest = slot, busy
        return best, idle, room

    def _send(self, slot: Slot, take: int, now: float) -> None:
        jobs = self._jobs
        picked: list[Job] = []
        while len(picked) < take and len(jobs):
            job = jobs.popleft()
            if job.state == DONE:
                continue
            alone = job.attempts or job.request.alone  # job.alone, which costs a call
            if alone and picked:
                jobs.put_back([job])
                break
            picked.append(job)
            if alone:
                break
        last, answered = picked[-1].arrived, self._answered
        gap = last - (answered if last >= answered else self._answered_before)
        self.policy.sent(len(picked), self._expected, gap, now - answered)
        self._dispatch(slot, picked, now)

    def _waits(self) -> list[float]:
        """How long each request has been there, oldest first."""
        now = self._now()
        return [now - job.arrived for job in self._jobs if job.state != DONE]

    def _dispatch(self, slot: Slot, picked: list[Job], now: float) -> None:
        self._free_since = now  # whoever waits next begins to collect now
        self.depth -= len(picked)
        self.in_flight += 1
        self._batch_id = batch_id = (self._batch_id + 1) & _BATCH_IDS
        batch = Batch(batch_id, picked, now, slot)
        for index, job in enumerate(picked):
            job.state, job.batch, job.index, job.sent = SENT, batch, index, now
        slot.send(batch)
