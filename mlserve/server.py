"""The composition root: settings in, a running server out.

Order of a start: bind every address (a taken port must fail before minutes of loading), answer health checks with "not
ready", load the models, say ready. Order of a stop: close the listeners, answer what was accepted, end the workers.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlserve.allocator import keep_freed_memory
from mlserve.archive.requirements import installing
from mlserve.archive.store import ModelStore
from mlserve.core.lifecycle import WorkerState
from mlserve.core.model import ModelKey, WorkerInfo
from mlserve.core.sequence import SequenceHeaders
from mlserve.core.service import InferenceService
from mlserve.engine.local import LocalEngine, available_cpus, discover_gpus, load_options
from mlserve.errors import ServeError, SettingError
from mlserve.log import AccessLog, open_access_log
from mlserve.protocols.tls import server_context
from mlserve.protocols.tokens import TokenGuard
from mlserve.rest.addresses import listeners
from mlserve.rest.doors import HttpDoors
from mlserve.rest.ts_metrics import attach, check_metrics, declarations, make_torchserve_metrics
from mlserve.settings import Settings
from mlserve.settings.tree import UNIX
from mlserve.snapshots import Snapshots, restore_models
from mlserve.startup import load_models, make_intake, make_work_dir

if TYPE_CHECKING:
    from mlserve.core.workflows import WorkflowService
    from mlserve.engine.local.early import Begun
    from mlserve.rpc.doors import RpcDoors

log = logging.getLogger(__name__)

OK, FAILED, MODEL_FAILED = 0, 1, 4
_UNPACKED = 30.0  # s until models that are registered in the background have workers that start
_QUIET = 1.0  # s until the first answers are given, and what they need has settled
GRPC_APIS = ("grpc_inference", "grpc_management")


class Progress(Protocol):
    """Who wants to see what the server is doing while it starts and stops."""

    def model_loading(self, name: str) -> None:
        """A model named at start is being unpacked and its workers started."""

    def worker_ready(self, model: str, ready: int, wanted: int) -> None:
        """One more worker has loaded."""

    def model_ready(self, name: str, seconds: float) -> None:
        """All workers of the model have loaded."""

    def model_failed(self, name: str, error: ServeError) -> None:
        """The model will not serve."""

    def listening(self, what: str, address: str) -> None:
        """An API is bound to ``address``."""

    def ready(self, seconds: float) -> None:
        """Every required model has a ready worker."""

    def stopping(self, reason: str) -> None:
        """No new requests from now on."""

    def stopped(self) -> None:
        """Every worker has ended."""


class LoopClock:
    """The event loop as the core's clock. ``loop.time()`` of uvloop advances in whole milliseconds, this does not."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time = time.monotonic
        self.call_soon = loop.call_soon
        self.call_later = loop.call_later


def run(settings: Settings, progress: Progress, begun: Begun | None = None) -> int:
    """Serve until a signal. Returns the exit code: 0, 1 (could not start) or 4 (a required model did not load).

    ``begun`` is a process that may become the first worker.

    Raises :class:`SettingError` for settings that cannot go together.
    """
    _check(settings)
    keep_freed_memory()
    main = Server(settings, progress, begun).main()
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def _check(settings: Settings) -> None:
    if settings.models.store and not Path(settings.models.store).is_dir():
        raise SettingError(f"models.store is {settings.models.store}, which is no directory (--model-store)")
    check_metrics(settings.metrics)
    server = settings.server
    apis = ["inference", "management"] + (["metrics"] if settings.metrics.enabled else [])
    apis += GRPC_APIS if settings.grpc.enabled else ()
    grpc_tls = settings.grpc.enabled and set(GRPC_APIS).intersection(settings.tls.apis)
    if grpc_tls or any(address.tls for address in listeners(settings)):
        server_context(settings.tls)
    taken: dict[tuple[str, int], str] = {}
    for api in apis:
        host, port = server.address(api)
        first = taken.setdefault((host, port), api) if port else api
        if first != api and {first, api}.intersection(GRPC_APIS):
            raise SettingError(f"server.{api}_port is {port}, which server.{first}_port has already")
        if first != api and len({first, api} & set(settings.tls.apis)) == 1:
            raise SettingError(
                f"server.{api}_port is {port} like server.{first}_port: both or none must be in tls.apis"
            )
        if not (server.insecure or settings.auth.tokens or _is_loopback(host)):
            raise SettingError(
                f"server.host is {host}: anybody who reaches that address could use the {api} API. "
                "Keep 127.0.0.1 behind a proxy that asks who is calling, or allow it with --insecure (server.insecure)"
            )
    if settings.models.model_api and "http(s)?://.*" in settings.models.allowed_urls:
        log.warning("clients may register models from any URL: limit models.allowed_urls (allowed_urls) in production")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.startswith(UNIX):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server:
    """One server process: builds the parts, runs them, takes them down."""

    def __init__(self, settings: Settings, progress: Progress, begun: Begun | None = None) -> None:
        self._settings = settings
        self._intake = make_intake(settings)
        self._progress = progress
        self._begun = begun
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reason = ""
        self._rpc: RpcDoors | None = None

    async def main(self) -> int:
        """Start, serve until told to stop, stop. Returns the exit code."""
        started = time.monotonic()
        self._loop = loop = asyncio.get_running_loop()
        work_dir = make_work_dir(self._settings.server.temp_directory)
        access = open_access_log(self._settings.log)
        service = self._service = self._build_service(work_dir, loop)
        service.intake = self._intake
        guard = TokenGuard(self._settings.auth) if self._settings.auth.tokens else None
        self._doors = HttpDoors(
            self._settings,
            service,
            access if access.enabled else None,
            self._progress.listening,
            guard,
            lambda: self._build_workflows(work_dir),
            self._engine.requests,
        )
        snapshots = Snapshots(self._settings, service, len(self._gpu_ids))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, access.reopen)  # what a log rotation sends
        try:
            await self._doors.open()
            if self._settings.grpc.enabled:
                await self._open_rpc(guard, access if access.enabled else None)
            if guard is not None:
                guard.write()  # now that no other server has these ports, and before anybody is told of them
            code = await self._load(service)
            self._engine.settle(_UNPACKED if self._settings.models.start_in_background else 0)
            if code == OK and not self._stop.is_set():
                service.starting = False
                snapshots.started()
                gc.set_threshold(*_GC_THRESHOLDS)
                gc.freeze()  # what is there now stays: full collections took 2.4 % of a busy frontend's time
                self._progress.ready(time.monotonic() - started)
                loop.call_later(_QUIET, self._complete_doors)
                await self._stop.wait()
            self._progress.stopping(self._reason or "a model could not be loaded")
            return code
        except OSError as error:
            log.error("cannot start: %s", error)
            self._progress.stopping(str(error))
            return FAILED
        finally:
            snapshots.stopped()
            if self._measuring is not None:
                self._measuring.cancel()
            await self._take_down()
            if guard is not None:
                guard.remove()
            access.close()
            shutil.rmtree(work_dir, ignore_errors=True)
            self._progress.stopped()

    def _complete_doors(self) -> None:
        """Nobody has needed them yet; the first who does shall not wait."""
        if not self._stop.is_set():
            self._doors.complete().add_done_callback(lambda _: gc.freeze())

    async def _open_rpc(self, guard: TokenGuard | None, access: AccessLog | None) -> None:
        from mlserve.rpc.doors import RpcDoors  # 3 MiB, and 60 ms that servers without gRPC need not spend

        self._rpc = RpcDoors(self._settings, self._service, guard, access, self._progress.listening)
        await self._rpc.open()

    def _build_workflows(self, work_dir: Path) -> WorkflowService:
        from mlserve.archive.workflow_store import WorkflowStore  # when their API is needed
        from mlserve.core.workflows import WorkflowService

        models = self._settings.models
        root = models.workflow_store or models.store
        store = WorkflowStore(
            Path(root) if root else None,
            work_dir=work_dir,
            defaults={name: getattr(self._settings.defaults, name) for name in _MODEL_DEFAULTS},
            allowed_urls=models.allowed_urls,
            private_urls=models.private_urls,
        )
        return WorkflowService(self._service, store)

    def _build_service(self, work_dir: Path, loop: asyncio.AbstractEventLoop) -> InferenceService:
        settings = self._settings
        defaults = settings.defaults
        metrics = make_torchserve_metrics(settings.metrics)
        store = ModelStore(
            Path(settings.models.store) if settings.models.store else None,
            work_dir=work_dir,
            defaults={name: getattr(defaults, name) for name in _MODEL_DEFAULTS},
            model_settings=settings.model,
            allowed_urls=settings.models.allowed_urls,
            private_urls=settings.models.private_urls,
            any_directory=settings.models.any_directory,
            bare_files=settings.models.bare_files,
            default_handler=settings.models.default_handler,
            installing=installing(settings),
        )
        self._gpu_ids = _gpu_ids(settings)
        self._engine = LocalEngine(
            gpu_ids=self._gpu_ids,
            cpus=available_cpus(),
            options=replace(load_options(settings), metrics=declarations(metrics)),
            on_state=self._on_worker_state,
            spares=settings.workers.spare,
            begun=self._begun,
            first_id=settings.workers.first_id,
            first_group_id=settings.workers.first_group_id,
        )
        self._store = store
        service = InferenceService(
            self._engine,
            store,
            LoopClock(loop),
            default_workers=defaults.workers,
            drain_grace=settings.models.unregister_timeout,
            default_versions=settings.default_versions,
            healthy_while_retrying=settings.server.healthy_while_retrying,
            sequence_headers=SequenceHeaders(
                settings.server.sequence_id_header,
                settings.server.sequence_start_header,
                settings.server.sequence_end_header,
            ),
        )
        self._measuring = attach(metrics, service, settings.metrics)
        return service

    async def _load(self, service: InferenceService) -> int:
        """Load what the settings name, unless a signal comes first."""
        loading = asyncio.ensure_future(
            load_models(service, self._store, self._settings, len(self._gpu_ids), self._progress)
            if self._settings.model_snapshot is None
            else restore_models(service, self._store, self._settings, self._progress)
        )
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((loading, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not loading.done():
            loading.cancel()
            await asyncio.wait((loading,))
            return OK
        try:
            failed = loading.result()
        except ServeError as error:
            self._reason = error.message
            log.error("cannot start: %s", self._reason)
            return FAILED
        if failed and not self._settings.models.keep_going:
            return MODEL_FAILED
        if service.missing:
            log.warning("going on without %s, until they are registered", ", ".join(service.missing.values()))
        return OK

    async def _take_down(self) -> None:
        """Answer what was accepted, unless a second signal says not to wait for it."""
        await self._doors.refuse()
        if self._rpc is not None:
            await self._rpc.refuse()
        graceful = asyncio.ensure_future(self._drain())
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait((graceful, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not graceful.done():
            graceful.cancel()
            await self._engine.close()
        await self._doors.cut()
        if self._rpc is not None:
            await self._rpc.cut()

    async def _drain(self) -> None:
        grace = self._settings.server.shutdown_grace
        await asyncio.gather(self._service.shutdown(grace), self._doors.last_call())
        await self._doors.drain()
        if self._rpc is not None:
            await self._rpc.drain()

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._stop.is_set():
            log.warning("second %s: ending without waiting for requests", name)
            self._hurry.set()
        self._reason = name
        self._stop.set()

    def _on_worker_state(self, key: ModelKey, info: WorkerInfo) -> None:
        if info.state == WorkerState.READY.value and self._service.starting:
            self._loop.call_soon(self._tell_ready, key)  # in the next turn the queue has counted it

    def _tell_ready(self, key: ModelKey) -> None:
        if self._service.registry.has(key):
            handle = self._service.find(*key)
            self._progress.worker_ready(key.name, handle.ready_workers, handle.pool.target)


# Requests leave no cycles behind, so passes of the collector find nothing; at 512 connections they took 5 % of the
# frontend's time with the interpreter's own thresholds. What cycles there are (aiohttp's) wait longer: some megabytes.
_GC_THRESHOLDS = 50_000, 20, 20
_MODEL_DEFAULTS = (
    "batch_size",
    "max_batch_delay_ms",
    "batch_policy",
    "latency_target_ms",
    "job_queue_size",
    "response_timeout",
    "startup_timeout",
    "max_retry_timeout",
    "retry_on_worker_death",
    "isolate_errors",
    "threads_per_worker",
)


def _gpu_ids(settings: Settings) -> tuple[int, ...]:
    ids = settings.gpu.ids if settings.gpu.ids is not None else tuple(discover_gpus())
    return ids[: settings.gpu.limit] if settings.gpu.limit >= 0 else ids
