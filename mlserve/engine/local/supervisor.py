"""One worker's life, over all the processes it takes: start, load, watch, bury, wait, start again.

``_run`` is the life as prose; what happens in between arrives as callbacks of the link. States change only by
``core.lifecycle``; every step is logged and told to whoever shows progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from mlserve.core.lifecycle import Backoff, WorkerEvent, WorkerState, advance
from mlserve.core.model import ModelSpec, WorkerInfo
from mlserve.core.ports import SlotEvents
from mlserve.engine.local.exits import REASONS, Ending, explain, oom_kill_count
from mlserve.engine.local.launch import LoadOptions, load_message, placed, worker_env
from mlserve.engine.local.link import WorkerLink
from mlserve.engine.local.logs import WorkerLog
from mlserve.engine.local.process import WorkerProcess
from mlserve.engine.local.reports import report_for
from mlserve.engine.local.spare import start_process
from mlserve.engine.local.spares import Spares
from mlserve.engine.local.spawn import close_replies, worker_arenas
from mlserve.engine.local.watch import HEARTBEAT, LinkWatch
from mlserve.errors import ErrorKind, ServeError, WorkerDied
from mlserve.wire.frames import VERSION
from mlserve.wire.lending import LendingArena
from mlserve.wire.payload import Hello, LoadFailed, LogRecordMeta, Ready, Warmed

log = logging.getLogger(__name__)

LAST_WORDS = 1.0  # s for a dead worker's socket to deliver what is in it, and for one with a closed socket to exit
EXIT_GRACE = 5.0  # s from DRAIN to SIGTERM
TERM_GRACE = 2.0  # s from SIGTERM to SIGKILL
_DETAIL_LINES = 20


@dataclass
class Shared:
    """What the workers of one pool have in common. ``target`` is how many there should be."""

    spec: ModelSpec
    events: SlotEvents
    options: LoadOptions
    cpus: float
    command: Sequence[str]
    on_state: Callable[[WorkerInfo], object]
    on_end: Callable[[Worker, ServeError | None], object]
    spares: Spares | None = None  # of which its workers may take one
    requests: LendingArena | None = None  # in which all workers find large bodies
    arena_size: int = 0  # of each worker's replies
    heartbeat: float = HEARTBEAT
    target: int = 0
    restarts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))


class Worker:
    """A place for a worker process; keeps its id and its device over restarts.

    ``first_load`` gets None when the model has been loaded for the first time, or why it could not be.
    """

    def __init__(self, worker_id: int, gpu_ids: Sequence[int], shared: Shared, index: int = 0) -> None:
        self.worker_id = worker_id
        self.state = WorkerState.STARTING
        self.first_load: asyncio.Future[Ending | None] = asyncio.get_running_loop().create_future()
        self.index = index  # its place among the workers of the pool
        self._gpu_ids = tuple(gpu_ids)
        self._shared = shared
        self._spec = shared.spec
        self._log = WorkerLog(str(shared.spec.key), worker_id)
        self._report = report_for(shared.options.log_format)(shared.spec.key, worker_id)
        self._backoff = Backoff(shared.spec.max_retry_timeout, first=shared.options.first_retry_wait)
        self._process: WorkerProcess | None = None
        self._link: WorkerLink | None = None
        self._watch: LinkWatch | None = None
        self._startup_timer: asyncio.TimerHandle | None = None
        self._announced = False  # the queue has seen the link ...
        self._offered = False  # ... and may send to it
        self._fault: Ending | None = None  # why we killed it
        self._load_failure: LoadFailed | None = None
        self._signature: dict[str, object] = {}  # what the handler said of its model
        self._ending: Ending | None = None
        self._environment: dict[str, str] = {}
        self._late: dict[str, str | None] | None = None  # what a process that was a spare has to be told, else None
        self._restarts = 0
        self._started_at = 0.0
        self._stop_asked = asyncio.Event()
        self._drain_task: asyncio.Task[None] | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"worker-{worker_id}")

    # -- what the pool calls ------------------------------------------------------------------------------------------

    async def stop(self, grace: float | None) -> None:
        """Drain, then end the process: in ``grace`` seconds, or (None) as long as the batches in flight take."""
        if self.state is WorkerState.READY:
            self._step(WorkerEvent.STOP)
            self._withdraw()
            self._drain_task = asyncio.get_running_loop().create_task(self._drain())
        elif self.state in (WorkerState.STARTING, WorkerState.LOADING):
            self._step(WorkerEvent.STOP)
            self._kill(Ending("stopped", "was stopped while it was loading"))
        elif self.state is WorkerState.BACKOFF:
            self._step(WorkerEvent.STOP)
        elif self.state is WorkerState.FAILED:  # its life is over; only its place in the list is left
            self._step(WorkerEvent.STOP)
            self._shared.on_end(self, None)
        self._stop_asked.set()
        await asyncio.wait({self._task}, timeout=grace)
        if grace is None or self._task.done():
            return
        late = f", {grace:g} s after it was told to end" if grace else ""
        why = Ending("stopped", f"was stopped with requests in flight{late}")
        if grace and self._process is not None:
            self._fault = self._fault or why
            self._process.terminate()
            await asyncio.wait({self._task}, timeout=TERM_GRACE)
        self._kill(why)
        await asyncio.wait({self._task})

    def info(self, *, memory: bool = True) -> WorkerInfo:
        """The worker as ``describe`` shows it. Measuring ``memory`` reads /proc."""
        pid = self._process.pid if self._process is not None else -1
        resident = 0
        if memory and pid > 0:
            with contextlib.suppress(psutil.Error):
                resident = psutil.Process(pid).memory_info().rss
        return WorkerInfo(
            worker_id=self.worker_id,
            state=self.state.value,
            pid=pid,
            started_at=self._started_at,
            device=",".join(f"cuda:{gpu_id}" for gpu_id in self._gpu_ids) or "cpu",
            gpu_id=self._gpu_ids[0] if self._gpu_ids else None,
            memory_bytes=resident,
            restarts=self._restarts,
            last_exit=self._ending.text if self._ending else "",
            traceback=self._load_failure.traceback if self._load_failure else "",
            log_tail=tuple(self._log.tail),
            signature=self._signature,
        )

    def error(self, ending: Ending) -> ServeError:
        """A death as the requests that it took along see it."""
        message = f"Worker died: worker {self.worker_id} of model {self._spec.key} {ending.text}"
        error = WorkerDied(message, detail=ending.detail)
        error.killed = ending.killed
        return error

    # -- the life -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        error: ServeError | None = None
        try:
            while True:
                ending = self._ending = await self._live()
                if self.state is not WorkerState.DRAINING:
                    self._report.died(ending, self.state)
                self._step(WorkerEvent.DIED)
                if self._shared.options.retry_first_load and not self.first_load.done():
                    self.first_load.set_result(ending)
                if self.state is WorkerState.STOPPED:
                    break
                if not await self._wait(ending):
                    if self.state is WorkerState.FAILED:
                        error = self.error(ending)
                    break
                self._restarts += 1
                self._shared.restarts[ending.slug] = self._shared.restarts.get(ending.slug, 0) + 1
                self._step(WorkerEvent.RETRY)
        except Exception as fault:
            log.exception("the supervisor of worker %d failed", self.worker_id)
            self.state = WorkerState.FAILED
            self._kill(Ending("internal", "lost its supervisor"))
            self._ending = Ending("internal", f"lost its supervisor: {fault!r}")
            error = self.error(self._ending)
        if self._drain_task is not None:
            self._drain_task.cancel()
        if not self.first_load.done():
            self.first_load.set_result(self._ending)
        self._shared.on_end(self, error)

    async def _wait(self, ending: Ending) -> bool:
        """Wait for the next try. False when there is none: given up, or stopped meanwhile."""
        delay = self._backoff.failed(time.monotonic())
        never_loaded = not self.first_load.done() or self.first_load.result() is not None
        if never_loaded and not self._shared.options.retry_first_load:
            delay = None  # it has never worked: trying again is for whoever scales, once the cause is gone
        if delay is None:
            self._step(WorkerEvent.GIVE_UP)
            return False
        self._report.retry(ending, delay)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop_asked.wait(), delay)
        return not self._stop_asked.is_set()

    async def _live(self) -> Ending:
        """One process, from its start to its end."""
        self._fault = self._load_failure = None
        self._started_at = time.time()
        self._log.begin()
        oom_before = oom_kill_count()
        try:
            process, link, arenas, hello = await self._obtain()
        except OSError as error:
            return Ending("spawn_failed", f"could not be started: {error}")
        if self.state is WorkerState.DRAINING:  # stopped while it was being spawned
            process.kill()
        loop = asyncio.get_running_loop()
        self._startup_timer = loop.call_later(self._spec.startup_timeout, self._startup_timeout)
        if hello is not None:
            self.link_hello(hello)
        code = await process.exited
        self._startup_timer.cancel()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        await link.closed(LAST_WORDS)  # finished results may still be in the socket
        link.close()
        ending = self._explain(code, oom_before)
        self._bury(link, ending)
        close_replies(arenas)
        self._process = self._link = None
        return ending

    async def _obtain(self) -> tuple[WorkerProcess, WorkerLink, list[LendingArena], Hello | None]:
        """A process and the link to it: a spare one, which has said hello already, or else a new one."""
        shared = self._shared
        self._environment = worker_env(self._spec, self._gpu_ids, shared.cpus, shared.target, options=shared.options)
        patient = self._spec.async_communication  # there the loop's own sign of life counts
        at_once = self._spec.handler_threads
        taken = None
        if shared.spares is not None:
            taken = await shared.spares.take(self._spec, self._environment, self._stop_asked)
            if taken is None and self._stop_asked.is_set():
                raise OSError("it is to stop")
        if taken is not None:
            spare, self._late = taken
            self._process, self._link, arenas = spare.hand_over(
                self.worker_id, shared.events, self, self._log, patient=patient, at_once=at_once
            )
            log.info(
                "worker %d of model %s takes the spare process %d", self.worker_id, self._spec.key, self._process.pid
            )
            return self._process, self._link, arenas, spare.hello
        self._late = None
        arenas = worker_arenas(shared.requests, shared.arena_size)
        try:
            command = placed(shared.command, self.index, shared.target)
            process = self._process = await start_process(command, self._environment, self._log, arenas)
        except OSError:
            close_replies(arenas)
            raise
        link = self._link = WorkerLink(self.worker_id, shared.events, self, *arenas, patient=patient, at_once=at_once)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=process.sock)
        return process, link, arenas, None

    def _explain(self, code: int, oom_before: int | None) -> Ending:
        lines = "\n".join(list(self._log.tail)[-_DETAIL_LINES:])
        if self._fault is not None:
            return self._fault._replace(detail=self._fault.detail or lines)
        if self._load_failure is not None:
            failure = self._load_failure
            slug = "out_of_memory" if failure.kind == ErrorKind.OUT_OF_MEMORY.value else "load_failed"
            return Ending(slug, f"could not load the model: {failure.message}", failure.traceback or lines)
        if code == 0 and self.state is WorkerState.DRAINING:
            return Ending("stopped", "ended as asked")
        oom_now = oom_kill_count()
        known = oom_before is not None and oom_now is not None
        kills = (oom_now or 0) - (oom_before or 0) if known else None
        loading = self.state is WorkerState.LOADING
        return explain(code, loading=loading, lines=self._log.present(), oom_kills=kills)._replace(detail=lines)

    def _bury(self, link: WorkerLink, ending: Ending) -> None:
        """Give the queue back what the worker had."""
        if not self._announced:
            return
        self._withdraw()
        self._announced = False
        left = link.abandon()
        if left or ending.slug != "stopped":
            started = len(left) if self._spec.concurrent else self._spec.handler_threads
            self._shared.events.slot_lost(link, left[:started], left[started:], self.error(ending))

    async def _drain(self) -> None:
        link, process = self._link, self._process
        if link is None or process is None:
            return
        await link.drained()
        link.drain()
        # What it still computes nobody waits for: a handler that sleeps must not hold up whoever unregisters.
        await asyncio.wait({process.exited}, timeout=0.0 if link.in_flight else EXIT_GRACE)
        if process.exited.done():
            return
        self._fault = self._fault or Ending("stopped", f"did not end within {EXIT_GRACE:g} s of being told to")
        process.terminate()
        await asyncio.wait({process.exited}, timeout=TERM_GRACE)
        process.kill()

    def _step(self, event: WorkerEvent) -> None:
        before, self.state = self.state, advance(self.state, event)
        log.debug("worker %d of model %s: %s -> %s", self.worker_id, self._spec.key, before.value, self.state.value)
        self._shared.on_state(self.info(memory=False))

    def _withdraw(self) -> None:
        """No more batches from the queue."""
        if self._offered and self._link is not None:
            self._offered = False
            self._shared.events.slot_closing(self._link)

    def _kill(self, why: Ending) -> None:
        self._fault = self._fault or why
        if self._process is not None:
            self._process.kill()

    def _startup_timeout(self) -> None:
        limit = f"startup_timeout is {self._spec.startup_timeout:g} s; startupTimeout in model-config.yaml"
        self.link_fault("startup_timeout", f"did not load the model in time ({limit})")

    # -- LinkOwner ----------------------------------------------------------------------------------------------------

    def link_hello(self, hello: Hello) -> None:
        """See ``LinkOwner``."""
        if self.state is not WorkerState.STARTING or self._link is None:
            return
        if hello.protocol != VERSION:
            self.link_fault("protocol_error", f"speaks protocol {hello.protocol}, this server speaks {VERSION}")
            return
        self._step(WorkerEvent.HELLO)
        self._report.started(hello, self._log)
        message = load_message(self._spec, self._gpu_ids, self._shared.options, self.worker_id)
        message.environment = self._late or {}
        message.report_modules = self._teaches()
        self._link.load(message)

    def link_warmed(self, warmed: Warmed) -> None:
        """See ``LinkOwner``. It is no spare any more."""

    def link_ready(self, ready: Ready) -> None:
        """See ``LinkOwner``."""
        if self.state is not WorkerState.LOADING or self._link is None:
            return
        if self._startup_timer is not None:
            self._startup_timer.cancel()
        self._backoff.ready(time.monotonic())
        self._watch = LinkWatch(self._link, self._spec.response_timeout, self.link_fault, self._shared.heartbeat)
        self._announced = self._offered = True
        self._signature = ready.signature
        self._step(WorkerEvent.LOADED)
        self._report.loaded()
        if self._shared.spares is not None and self._teaches():
            self._shared.spares.learn(self._spec, self._environment, ready.modules)
        self._shared.events.worker_loaded(self.worker_id, time.time() - self._started_at, ready.metrics)
        self._shared.events.slot_ready(self._link)
        if not self.first_load.done():
            self.first_load.set_result(None)

    def _teaches(self) -> bool:
        """Whether spares are to learn what it imports: one that was a spare may have more than its model needs."""
        spares = self._shared.spares
        return spares is not None and (self._late is None or not spares.knows(self._spec.key))

    def link_failed(self, failed: LoadFailed) -> None:
        """See ``LinkOwner``."""
        self._load_failure = failed
        self._shared.events.load_failed(failed.metrics)

    def link_log(self, record: LogRecordMeta) -> None:
        """See ``LinkOwner``."""
        self._log.record(record)

    def link_fault(self, slug: str, text: str) -> None:
        """See ``LinkOwner``."""
        self._withdraw()
        self._kill(Ending(slug, text))

    def link_closed(self) -> None:
        """See ``LinkOwner``."""
        self._withdraw()
        process = self._process
        if process is not None and not process.exited.done():
            asyncio.get_running_loop().call_later(LAST_WORDS, self._outlived, process)

    def _outlived(self, process: WorkerProcess) -> None:
        if process is self._process and self.state is not WorkerState.DRAINING and not process.has_exited():
            self.link_fault("connection_lost", "closed its connection without exiting")
