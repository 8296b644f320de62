"""A spare worker: a process that has imported what models need and waits to be given one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from mlserve.core.model import SpareInfo
from mlserve.engine.local.fitting import packages
from mlserve.engine.local.link import LinkOwner, WorkerLink
from mlserve.engine.local.logs import SpareLog, WorkerLog
from mlserve.engine.local.memory import process_memory
from mlserve.engine.local.process import WorkerProcess
from mlserve.engine.local.spawn import close_replies, with_arenas, worker_arenas
from mlserve.wire.frames import VERSION
from mlserve.wire.lending import LendingArena
from mlserve.wire.payload import Hello, LoadFailed, LogRecordMeta, Ready, Warm, Warmed

if TYPE_CHECKING:
    from mlserve.core.ports import SlotEvents
    from mlserve.engine.local.early import Begun

log = logging.getLogger(__name__)

PATIENCE = 120.0  # s to import everything: the default startup_timeout of a model


async def start_process(
    command: Sequence[str], environment: Mapping[str, str], lines: WorkerLog, arenas: Sequence[LendingArena]
) -> WorkerProcess:
    """Start a worker process that maps ``arenas``. Raises OSError if that cannot be done."""
    fds = [arena.fd for arena in arenas]
    return await WorkerProcess.spawn(with_arenas(command, arenas), env=environment, log=lines, pass_fds=fds)


class Spare:
    """One spare process, until it is handed over or ends. ``hello`` is what it said first; ``top`` what it imported.

    ``on_change`` is called when it is warm. ``begun`` is one that runs already, for the model of that URL.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        modules: Sequence[str],
        on_change: Callable[[Spare], object],
        begun: Begun | None = None,
    ) -> None:
        self.environment = environment
        self.packages = packages(modules)
        self.made_for = begun.url if begun is not None else ""
        self.reserved = False  # for a worker that waits until it is warm
        self.state = "starting"
        self.hello: Hello | None = None
        self.top: tuple[str, ...] = ()
        self.spoiled = False  # what it has imported does not do for any worker
        self.resident = self.proportional = 0
        self._modules = list(modules)
        self._on_change = on_change
        self._begun = begun
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._log = SpareLog()
        self._arenas: list[LendingArena] = []
        self._process: WorkerProcess | None = None
        self._link: WorkerLink | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, command: Sequence[str], requests: LendingArena | None, arena_size: int) -> None:
        """Start it, and return when it has been handed over or has ended. Cancel to end it."""
        loop = asyncio.get_running_loop()
        begun = self._begun
        arenas = self._arenas = begun.arenas if begun is not None else worker_arenas(requests, arena_size)
        try:
            if begun is not None:
                begun.take()
                process = WorkerProcess.of(begun.started, self._log)
            else:
                process = await start_process(command, self.environment, self._log, arenas)
            self._process = process
            events = cast("SlotEvents", None)  # nothing is sent to it that could have results
            link = self._link = WorkerLink(0, events, self, *arenas)
            await loop.create_unix_connection(lambda: link, sock=process.sock)
            self._timer = loop.call_later(PATIENCE, process.kill)
            await asyncio.wait((self._over, process.exited), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self.state != "gone":
                await self._bury()
            if not self._settled.done():
                self._settled.set_result(None)

    async def _bury(self) -> None:
        self.state = "ended"
        if self._process is not None:
            self._process.kill()
            await asyncio.shield(self._process.exited)
        if self._link is not None:
            self._link.close()
        close_replies(self._arenas)

    def coming(self) -> bool:
        """Whether it may be usable soon: waiting for it is shorter than another one's whole start."""
        return self.state in ("starting", "warming") and not self.reserved

    async def settled(self) -> None:
        """Return when it is warm, or has ended."""
        await asyncio.shield(self._settled)

    def usable(self) -> bool:
        """Whether it is warm, and alive as far as the kernel knows."""
        return self.state == "warm" and self._process is not None and not self._process.has_exited()

    def hand_over(
        self, worker_id: int, events: SlotEvents, owner: LinkOwner, lines: WorkerLog, *, patient: bool, at_once: int
    ) -> tuple[WorkerProcess, WorkerLink, list[LendingArena]]:
        """Make it worker ``worker_id``, whose owner is to send LOAD. Only while :meth:`usable`."""
        assert self._process is not None
        assert self._link is not None
        self.state = "gone"
        self._link.hand_over(worker_id, events, owner, patient=patient, at_once=at_once)
        self._process.redirect(lines)
        self._over.set_result(None)
        return self._process, self._link, self._arenas

    def info(self) -> SpareInfo:
        """As ``describe`` shows it."""
        pid = self._process.pid if self._process is not None else -1
        return SpareInfo(pid, self.state, tuple(sorted(self.packages)), self.resident, self.proportional)

    # -- LinkOwner ----------------------------------------------------------------------------------------------------

    def link_hello(self, hello: Hello) -> None:
        """See ``LinkOwner``."""
        if hello.protocol != VERSION or self._link is None:
            self.link_fault("protocol_error", f"speaks protocol {hello.protocol}, this server speaks {VERSION}")
            return
        self.hello = hello
        self.state = "warming"
        if self._begun is None:  # else it has been told
            self._link.warm(Warm(self._modules))

    def link_warmed(self, warmed: Warmed) -> None:
        """See ``LinkOwner``."""
        for text in warmed.failed:
            log.debug("a spare worker could not import %s", text)
        if warmed.cuda:
            self.spoiled = True
            log.warning("no spare worker is kept: importing %s initialises CUDA", ", ".join(sorted(self.packages)))
            self.link_fault("cuda", "has CUDA initialised and cannot be pinned to a GPU")
            return
        if self._timer is not None:
            self._timer.cancel()
        self.top = tuple(warmed.top)
        if self.made_for:  # it is about to be taken: what it would cost as a spare is of no interest
            self.state = "warm"
            self._settled.set_result(None)
            return
        self._measured = asyncio.ensure_future(self._measure(warmed.seconds))

    async def _measure(self, seconds: float) -> None:
        assert self._process is not None
        self.resident, self.proportional = await asyncio.to_thread(process_memory, self._process.pid)
        if self.state != "warming":
            return
        self.state = "warm"
        log.info(
            "spare worker (pid %d) has imported %s in %.1f s and waits; it takes %d MiB",
            self._process.pid,
            ", ".join(sorted(self.packages)),
            seconds,
            self.proportional >> 20,
        )
        self._settled.set_result(None)
        self._on_change(self)

    def link_ready(self, ready: Ready) -> None:
        """See ``LinkOwner``. Nothing was to be loaded."""
        self.link_fault("protocol_error", "reported a model that it was not told to load")

    def link_failed(self, failed: LoadFailed) -> None:
        """See ``LinkOwner``. Nothing was to be loaded."""
        self.link_fault("protocol_error", failed.message)

    def link_log(self, record: LogRecordMeta) -> None:
        """See ``LinkOwner``."""
        self._log.record(record)

    def link_fault(self, slug: str, text: str) -> None:
        """See ``LinkOwner``."""
        log.debug("a spare worker %s", text)
        if self._process is not None:
            self._process.kill()

    def link_closed(self) -> None:
        """See ``LinkOwner``. A process that has let go of its socket is of no use."""
        if self._process is not None:
            self._process.kill()
