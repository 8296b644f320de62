"""The one way in: every protocol submits requests and manages models through this service.

Inference is a callback API (``submit``) because the fast lane needs it: a callback costs 0.2 us per request where a
task costs 1.6 and nested coroutines 3.1. Doors that live in coroutines anyway use ``events``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from mlserve.core.changes import Registered, Scaled
from mlserve.core.events import events
from mlserve.core.health import Health, judge
from mlserve.core.intake import Intake
from mlserve.core.job import Job
from mlserve.core.lifecycle import VersionEvent
from mlserve.core.messages import Chunk, InferenceRequest, InferenceResponse
from mlserve.core.metrics import HttpCounts, ModelStats
from mlserve.core.model import ModelDescription, ModelKey, ModelSpec, SpareInfo, check_name
from mlserve.core.observing import Observer
from mlserve.core.ports import Clock, Engine, ModelSource
from mlserve.core.queues import make_queue
from mlserve.core.refusals import no_worker
from mlserve.core.registry import Registry, VersionHandle
from mlserve.core.sequence import SEQUENCE_HEADERS, SequenceHeaders
from mlserve.errors import ErrorKind, InvalidInput, ModelExists, NoWorker, ServeError

log = logging.getLogger(__name__)


class InferenceService:
    """Models, their queues and their workers behind one small interface. Not thread-safe: one event loop."""

    def __init__(
        self,
        engine: Engine,
        source: ModelSource,
        clock: Clock,
        *,
        default_workers: int = 0,
        drain_grace: float = 120.0,
        healthy_while_retrying: bool = False,
        sequence_headers: SequenceHeaders = SEQUENCE_HEADERS,
        default_versions: Mapping[str, str] | None = None,
    ) -> None:
        self.registry = Registry(default_versions)
        self.http_counts = HttpCounts()
        self.intake = Intake()  # the server sets its own, with limits
        self.observer: Observer | None = None  # of every version that is registered from now on
        self.starting = True  # until the models named at start have been loaded
        self.stopping = False
        self.missing: dict[str, str] = {}  # named at start and not loaded: URL -> name
        self._engine = engine
        self._source = source
        self._clock = clock
        self._default_workers = default_workers
        self._drain_grace = drain_grace
        self._healthy_while_retrying = healthy_while_retrying
        self._sequence_headers = sequence_headers
        self._change_listeners: list[Callable[[], object]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closings: dict[VersionHandle, asyncio.Task[None]] = {}  # versions on their way out

    # -- inference ----------------------------------------------------------------------------------------------------

    def find(self, name: str, version: str = "") -> VersionHandle:
        """The version that serves such a request. Raises ``ModelNotFound`` or ``VersionNotFound``."""
        return self.registry.find(name, version)

    def submit(
        self,
        handle: VersionHandle,
        request: InferenceRequest,
        on_done: Callable[[Job], object],
        on_chunk: Callable[[Job, Chunk], object],
    ) -> Job:
        """Queue a request; ``on_done`` is called exactly once, later. Raises ``QueueFull`` or ``NoWorker``."""
        self._check_stopping()
        return handle.queue.put(request, on_done, on_chunk)

    def admit(self, handle: VersionHandle, job: Job) -> None:
        """As :meth:`submit`, for a job that is there already and is told itself."""
        self._check_stopping()
        handle.queue.admit(job)

    def cancel(self, job: Job) -> None:
        """Nobody waits for this job any more."""
        job.queue.cancel(job)

    def events(self, handle: VersionHandle, request: InferenceRequest) -> AsyncIterator[Chunk | Job]:
        """Submit, and yield the pieces of a streamed answer, if any, then the job, whose ``result`` is the ending.

        For doors that live in coroutines. Leaving the iteration early, or being cancelled in it, cancels the request,
        and so does falling too far behind: nothing else bounds the memory that a stream takes.
        """
        return events(self, handle, request)

    # -- management ---------------------------------------------------------------------------------------------------

    async def register(
        self,
        url: str,
        overrides: dict[str, Any],
        *,
        initial_workers: int | None = None,
        default_workers: int | None = None,
        synchronous: bool = True,
        loaded_at_startup: bool = False,
    ) -> Registered:
        """Load a model version and start its workers.

        ``initial_workers`` comes before every configuration but the model's own; ``default_workers`` (or the service's
        default) counts where nothing says how many. Raises what the model store raises, ``ModelExists``, and, when
        synchronous, ``WorkerStartError``; then nothing stays registered.
        """
        if initial_workers is not None:
            overrides = {**overrides, "min_workers": max(0, initial_workers), "max_workers": max(0, initial_workers)}
        self._check_stopping()
        resolve = self._source.resolve_local if loaded_at_startup else self._source.resolve
        spec = await resolve(url, overrides)
        spec = replace(spec, loaded_at_startup=loaded_at_startup)
        return await self.register_spec(spec, default_workers=default_workers, synchronous=synchronous)

    async def register_spec(
        self, spec: ModelSpec, *, default_workers: int | None = None, synchronous: bool = True
    ) -> Registered:
        """As :meth:`register`, for a specification that the model source has made."""
        try:
            check_name(spec.key.name)
            self._check_stopping()
            handle = self._open(
                _with_default_workers(spec, self._default_workers if default_workers is None else default_workers)
            )
        except BaseException:
            self._source.release(spec)
            raise
        workers = handle.spec.min_workers
        log.info("model %s registered from %s", handle.key, spec.url)
        missing = self.missing.pop(spec.url, None)
        if not workers:
            self._tell_changed(handle.spec)
            return Registered(handle.key, 0, True)
        handle.wanted = workers
        handle.queue.accept()
        bring_up = self._bring_up(handle, workers, tell=not self.starting)
        if not synchronous:
            self._keep(bring_up, f"starting workers of {handle.key}")
            return Registered(handle.key, workers, False)
        try:
            await bring_up
        except ServeError:
            if missing is not None:
                self.missing[spec.url] = missing
            if not handle.closing:  # or somebody has unregistered it meanwhile
                self.registry.discard(handle)
                await self._close(handle, grace=0.0)
                self._source.forget(handle.spec)
            raise
        return Registered(handle.key, workers, True)

    async def scale(
        self,
        name: str,
        version: str = "",
        *,
        min_workers: int = 1,
        max_workers: int | None = None,
        synchronous: bool = False,
    ) -> Scaled:
        """Grow to ``min_workers`` or shrink to ``max_workers``; in between nothing changes.

        No request is lost, but at 0 workers those that still wait are refused: nobody would ever come for them.
        Raises NotFound errors, ``InvalidInput``, and, when synchronous, ``WorkerStartError``.
        """
        handle = self.find(name, version)
        top = min_workers if max_workers is None else max_workers
        if min_workers < 0:
            raise InvalidInput(f"min_worker cannot be negative, got {min_workers}.")
        if top < min_workers:
            raise InvalidInput("max_worker cannot be less than min_worker.")
        workers = max(min_workers, min(handle.pool.target, top))
        handle.spec = replace(handle.spec, min_workers=min_workers, max_workers=top)
        handle.wanted = workers
        if workers:
            handle.queue.accept()
        else:
            handle.queue.refuse(no_worker(handle.spec))
        change = self._bring_up(handle, workers)
        if synchronous:
            await change
        else:
            self._keep(change, f"scaling {handle.key} to {workers}")
        return Scaled(handle.key, workers, synchronous)

    def set_default(self, name: str, version: str) -> None:
        """Route requests without a version to ``version``. Raises NotFound errors."""
        self.registry.set_default(name, version)
        log.info("model %s: default version is now %s", name, version)
        self._tell_changed(self.find(name).spec)

    async def unregister(self, name: str, version: str = "") -> ModelKey:
        """Take a version out of service: no new requests, the accepted ones are answered, then its workers end."""
        handle = self.registry.remove(name, version)
        await self._close(handle, self._drain_grace)
        self._source.forget(handle.spec)
        log.info("model %s unregistered", handle.key)
        self._tell_changed(handle.spec)
        return handle.key

    async def shutdown(self, grace: float) -> None:
        """Refuse new requests, answer the accepted ones for at most ``grace`` seconds, end all workers."""
        self.stopping = True
        for task in list(self._tasks):
            task.cancel()
        before = list(self._closings.items())  # unregistered a moment ago, with a longer time to drain
        handles = [handle for handle in self.registry.handles() if handle not in self._closings]
        await asyncio.gather(
            *(self._close(handle, grace) for handle in handles),
            *(asyncio.wait((closing,), timeout=grace) for _, closing in before),
        )
        for handle, _ in before:
            if handle.queue.on_idle is not None:
                handle.queue.on_idle()  # its time is up
        await self._engine.close()
        await asyncio.gather(*(closing for _, closing in before))

    # -- what can be told ---------------------------------------------------------------------------------------------

    def list_models(self) -> list[tuple[str, str]]:
        """(name, URL of the default version), by name."""
        specs = [(name, model.versions[model.default].spec) for name, model in self.registry]
        return [(name, spec.url) for name, spec in specs if spec.listed]

    def versions(self) -> list[VersionHandle]:
        """Every registered version."""
        return list(self.registry.handles())

    def describe(self, name: str, version: str = "") -> list[ModelDescription]:
        """One version (the default one if none is named) or, for "all", every version. Raises NotFound errors."""
        model = self.registry.model(name)
        handles = list(model.versions.values()) if version == "all" else [self.find(name, version)]
        return [
            ModelDescription(
                spec=handle.spec,
                state=handle.state.value,
                is_default=handle.key.version == model.default,
                workers=handle.pool.describe(),
                pending=handle.queue.depth,
                ready_workers=handle.ready_workers,
                last_error=handle.last_error,
            )
            for handle in handles
        ]

    def spares(self) -> list[SpareInfo]:
        """The processes that wait to become a worker of any model that they suit."""
        return self._engine.spares()

    async def describe_customized(self, name: str, version: str = "") -> InferenceResponse:
        """What the model's handler says of itself: its answer to a request with the header ``describe``, alone in its
        batch. Raises NotFound errors, ``NoWorker``, and ``ServeError`` when the handler has no answer."""
        handle = self.find(name, version)
        if not handle.ready_workers:
            raise NoWorker(
                f'Model "{name}" has no worker to serve describe request. Please use scale workers API to add workers.'
            )
        request = InferenceRequest("describe", [], [(b"describe", b"True")], alone=True)
        result: InferenceResponse | ServeError | None = None
        async for event in self.events(handle, request):
            result = event.result if isinstance(event, Job) else None
        if isinstance(result, InferenceResponse):
            return result
        detail = result.detail or result.message if result is not None else ""
        raise ServeError("Failed to get customized model matadata.", detail=detail)  # TorchServe's text, to the letter

    def health(self) -> Health:
        """What probes ask for. A model that was named at start and could not be loaded is missing until it is
        registered from the same URL."""
        up = not (self.starting or self.stopping)
        return judge(self.registry, self.missing.values(), up, self._healthy_while_retrying)

    def add_listener(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` now and after each change of what is routed where."""
        self.registry.add_listener(callback)

    def add_change_listener(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` after each change of listed models that was asked for of a running server and succeeded."""
        self._change_listeners.append(callback)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _open(self, spec: ModelSpec) -> VersionHandle:
        if self.registry.has(spec.key):
            raise ModelExists(f"Model version {spec.key.version} is already registered for model {spec.key.name}")
        stats = ModelStats()
        queue = make_queue(spec, self._clock, stats, self._sequence_headers)
        queue.observer = self.observer
        handle = VersionHandle(spec, queue, self._engine.open(spec, queue), stats)
        self.registry.add(handle)
        return handle

    async def _bring_up(self, handle: VersionHandle, workers: int, *, tell: bool = True) -> None:
        try:
            await handle.pool.scale(workers)
        except ServeError as error:
            handle.last_error = error.message
            if not handle.pool.target and not handle.closing:
                handle.queue.gave_up(error)
            raise
        if not (handle.wanted or handle.pool.target or handle.closing):
            handle.queue.close(no_worker(handle.spec))
        handle.last_error = ""
        handle.observe()
        if tell:
            self._tell_changed(handle.spec)

    def _tell_changed(self, spec: ModelSpec) -> None:
        if spec.listed and not self.starting:
            for callback in self._change_listeners:
                callback()

    def _check_stopping(self) -> None:
        if self.stopping:
            raise ServeError(
                "The server is stopping and takes no new requests", kind=ErrorKind.NOT_READY, retry_after=1
            )

    async def _close(self, handle: VersionHandle, grace: float) -> None:
        """End a version. Whoever comes second waits for what the first has begun."""
        closing = self._closings.get(handle)
        if closing is None:
            if handle.closing:
                return
            handle.step(VersionEvent.DRAIN)
            closing = self._closings[handle] = asyncio.create_task(self._end(handle, grace))
            closing.add_done_callback(lambda _: self._closings.pop(handle))
        await asyncio.shield(closing)

    async def _end(self, handle: VersionHandle, grace: float) -> None:
        until = self._clock.time() + grace
        idle = asyncio.Event()
        handle.queue.on_idle = idle.set
        try:
            if not handle.queue.idle:
                await asyncio.wait_for(idle.wait(), grace)
        except (asyncio.TimeoutError, TimeoutError):
            log.warning(
                "model %s: %d requests unanswered after %g s of draining", handle.key, handle.queue.depth, grace
            )
        await handle.pool.stop(max(0.0, until - self._clock.time()))
        why = "the server is stopping" if self.stopping else "it was unregistered"
        handle.queue.gave_up(ServeError(why, kind=ErrorKind.NOT_READY))
        handle.step(VersionEvent.DRAINED)
        self._source.release(handle.spec)

    def _keep(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Run ``work`` in a task that is not lost, and say so if it fails."""
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def finished(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                logged = isinstance(error, ServeError) and error.detail  # the worker's own lines hold it already
                log.error("%s failed: %s", what, "its worker's log says why" if logged else error)

        task.add_done_callback(finished)


def _with_default_workers(spec: ModelSpec, count: int) -> ModelSpec:
    """``count`` workers, unless the caller, the model's configuration or the settings said how many."""
    if spec.provenance.get("min_workers", "default") != "default":
        return spec
    return replace(spec, min_workers=count, max_workers=count)
