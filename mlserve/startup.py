"""What a start does before it serves: a place for unpacked models, and loading those that it was told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil

from mlserve.archive.store import ModelStore
from mlserve.core.intake import Intake
from mlserve.core.service import InferenceService
from mlserve.engine.local import available_cpus, memory_limit
from mlserve.errors import ErrorKind, ModelExists, ServeError, SettingError
from mlserve.protocols.admission import allow_connections
from mlserve.settings import Settings

log = logging.getLogger(__name__)

WORK_DIR, TUNE_DIR = "mlserve-work-", "mlserve-tune-"  # of servers, and of `mlserve tune`
AT_ONCE = 4  # models loading at the same time: more would share the CPUs into their startup timeouts


class LoadProgress(Protocol):
    """What of ``server.Progress`` concerns loading."""

    def model_loading(self, name: str) -> None:
        """Its turn has come."""

    def model_ready(self, name: str, seconds: float) -> None:
        """It serves."""

    def model_failed(self, name: str, error: ServeError) -> None:
        """It does not."""


def make_intake(settings: Settings) -> Intake:
    """What clients may make the server hold. Raises :class:`SettingError` where no request could be served."""
    server = settings.server
    least = 2 * server.max_request_size  # a body that grows is there twice for a moment
    memory = server.max_request_memory or max(memory_limit() // 4, least)
    if memory < least:
        raise SettingError(
            f"server.max_request_memory is {memory}: it must be at least twice server.max_request_size, {least}"
        )
    connections = server.max_connections
    if connections:
        doors = 2 if settings.grpc.enabled else 1
        fit = allow_connections(doors * connections) // doors
        if fit < connections:
            log.info(
                "at most %d connections instead of %d (server.max_connections): open files are limited (ulimit -Hn)",
                fit,
                connections,
            )
            connections = fit
    return Intake(connections, memory)


def make_work_dir(parent: str = "") -> Path:
    """A directory for this process's unpacked models, in ``parent`` or the system's place for temporary files.

    What servers and tunings that were killed have left there is removed. Raises :class:`SettingError` if ``parent`` is
    no directory.
    """
    temp = Path(parent or tempfile.gettempdir())
    if not temp.is_dir():
        raise SettingError(f"server.temp_directory is {temp}, which is no directory ($TEMP of the torchserve command)")
    for begin in (WORK_DIR, TUNE_DIR):
        for left in temp.glob(f"{begin}*-*"):
            pid = left.name.removeprefix(begin).partition("-")[0]
            with contextlib.suppress(OSError):
                if pid.isdigit() and not psutil.pid_exists(int(pid)) and left.lstat().st_uid == os.getuid():
                    log.info("removing %s, left by a process that was killed", left)
                    shutil.rmtree(left)
    return Path(tempfile.mkdtemp(prefix=own_prefix(WORK_DIR), dir=temp))


def own_prefix(begin: str) -> str:
    """What the name of a folder of this process begins with, so that it is removed if the process cannot do it."""
    return f"{begin}{os.getpid()}-"


def named_models(load: Sequence[str], store: ModelStore) -> list[tuple[str, str]]:
    """(name or "", path) of each model: ``name=file.mar``, ``file.mar``, a directory, ``handler.py``, ``all``."""
    named: list[tuple[str, str]] = []
    for entry in load:
        if entry.lower() == "all":
            named += [("", path.name) for path in store.list()]
        else:
            name, separator, path = entry.partition("=")
            named.append((name.strip(), path.strip()) if separator else ("", entry.strip()))
    return list(dict.fromkeys(named))


def startup_workers(settings: Settings, gpus: int) -> int:
    """Workers of each model named at start that nothing else gives a number."""
    defaults = settings.defaults
    return (
        defaults.startup_workers
        or defaults.workers
        or gpus
        or defaults.workers_without_gpu
        or max(1, int(available_cpus()))
    )


async def load_models(
    service: InferenceService, store: ModelStore, settings: Settings, gpus: int, progress: LoadProgress
) -> int:
    """Load them all; returns how many failed. Each failure is logged with the handler's traceback.

    Those are in ``service.missing`` then, so that a server that goes on without them (``models.keep_going``) is not
    ready. Raises :class:`ModelExists` where it would go on although two archives are one version of one model: which of
    them is served must not be a matter of luck.
    """
    workers = startup_workers(settings, gpus)
    background = settings.models.start_in_background
    gate = asyncio.Semaphore(1 if background else AT_ONCE)  # registering alone is quick, and in order

    async def load(name: str, path: str) -> bool:
        shown = name or Path(path).stem
        async with gate:
            progress.model_loading(shown)
            started = time.monotonic()
            try:
                overrides: dict[str, Any] = {"model_name": name} if name else {}
                registered = await service.register(
                    path,
                    overrides,
                    default_workers=workers,
                    synchronous=not background,
                    loaded_at_startup=True,
                )
            except ServeError as error:
                if isinstance(error, ModelExists) and settings.models.keep_going:
                    raise
                failure = error
            except Exception as error:
                log.exception("model %s: loading failed", shown)
                failure = ServeError(f"{type(error).__name__}: {error}", kind=ErrorKind.INTERNAL)
            else:
                if registered.done:
                    progress.model_ready(shown, time.monotonic() - started)
                return True
            level = logging.WARNING if settings.models.keep_going else logging.ERROR
            detail = "\n" + failure.detail if failure.detail else ""
            log.log(level, "model %s did not load: %s%s", shown, failure.message, detail)
            progress.model_failed(shown, failure)
            service.missing[path] = shown
            return False

    loads = [asyncio.ensure_future(load(*named)) for named in named_models(settings.models.load, store)]
    try:
        return (await asyncio.gather(*loads)).count(False)
    finally:
        for one in loads:
            one.cancel()  # does nothing to those that have ended
