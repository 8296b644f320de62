"""The HTTP listeners of a server: which API is bound where, and how all of them close without losing a request.

Closing has three steps. ``refuse``: no new connections, and every answer from now on tells its client not to send
another request. ``drain``: a moment for requests that are on their way and for clients that read slowly. ``cut``: end.
"""

from __future__ import annotations

import asyncio
import logging
import select
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlserve.core.service import InferenceService
from mlserve.log import AccessLog
from mlserve.protocols.admission import Admission
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.tls import server_context
from mlserve.protocols.tokens import TokenGuard
from mlserve.protocols.torchserve import HttpOptions
from mlserve.protocols.unix_sockets import BACKLOG
from mlserve.rest.addresses import Address, listeners
from mlserve.rest.fast import FastLane
from mlserve.rest.http1 import https_only, too_many
from mlserve.rest.lane import FLUSH, LAST_CALL, LaneShared, Limits
from mlserve.rest.listeners import Listener, listen
from mlserve.rest.standin import SlowDoor, import_slow
from mlserve.settings import Settings
from mlserve.wire.lending import LendingArena

if TYPE_CHECKING:
    from mlserve.core.workflows import WorkflowService
    from mlserve.rest.slow import SlowSide

log = logging.getLogger(__name__)


class HttpDoors:
    """The inference, management and metrics APIs on their ports. ``on_bound`` is told each API's name and URL.

    ``guard`` lets nobody in who has no token; there is none where none are asked for. Large bodies are read into
    ``bodies``. ``workflows`` is called once, in a thread, when what aiohttp serves is needed first.
    """

    def __init__(
        self,
        settings: Settings,
        service: InferenceService,
        access: AccessLog | None,
        on_bound: Callable[[str, str], object],
        guard: TokenGuard | None = None,
        workflows: Callable[[], WorkflowService] | None = None,
        bodies: LendingArena | None = None,
    ) -> None:
        self._bodies = bodies
        self._workflows = workflows
        self._settings = settings
        self._service = service
        self._access = access
        self._guard = guard
        self._on_bound = on_bound
        self._addresses = listeners(settings)
        self._listeners: list[Listener] = []
        self._lane: LaneShared | None = None
        self._ids = RequestIds(settings.server.echo_request_id)
        self._http = HttpOptions.of(settings)
        self._slow = [SlowDoor(self.complete) for _ in self._addresses]
        self._side: SlowSide | None = None  # what they lead to
        self._completing: asyncio.Task[None] | None = None
        self._refusing = False

    async def open(self) -> None:
        """Bind every address.

        Raises OSError that names the APIs and the address that cannot be had, and ``SettingError``.
        """
        secure = any(address.tls for address in self._addresses)
        context = server_context(self._settings.tls) if secure else None
        if not self._settings.server.fast_lane:
            await self.complete()
        for address, slow in zip(self._addresses, self._slow, strict=True):
            lane = self._fast_lane(slow) if "inference" in address.apis else None
            await self._bind(address, self._admission(address, lane, slow), context if address.tls else None)

    def complete(self) -> asyncio.Task[None]:
        """Have what aiohttp serves made, if it is not: that is done when somebody needs it, or has time for it."""
        if self._completing is None:
            self._completing = asyncio.ensure_future(self._complete())
            self._completing.add_done_callback(self._completed)
        return self._completing

    async def _complete(self) -> None:
        def imported() -> tuple[type[SlowSide], WorkflowService | None]:
            return import_slow(), self._workflows() if self._workflows is not None else None

        make, workflows = await asyncio.to_thread(imported)
        self._side = make(self._settings, self._service, self._access, self._guard, workflows, self._ids)
        servers = await self._side.set_up(self._addresses)
        if self._refusing:
            self._side.close()
        for slow, server in zip(self._slow, servers, strict=True):
            slow.open(server)

    def _completed(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("no API but predictions can be served until a request finds this repaired", exc_info=error)
            self._completing = None
        for slow in self._slow:
            if task.cancelled():
                slow.cut()
            elif error is not None:
                slow.drop()

    def _fast_lane(self, slow: SlowDoor) -> Callable[[], asyncio.BaseProtocol] | None:
        server = self._settings.server
        if not server.fast_lane:
            return None
        limits = Limits(
            server.max_request_size, server.max_header_size, server.header_timeout, server.keep_alive_timeout
        )
        shared = self._lane = LaneShared(
            self._service, slow, self._access, self._http, self._ids, limits, self._guard, self._bodies
        )
        return lambda: FastLane(shared)

    def _admission(
        self, address: Address, make: Callable[[], asyncio.BaseProtocol] | None, slow: SlowDoor
    ) -> Admission:
        intake, lane = self._service.intake, self._lane if make is not None else None
        return Admission(
            make or slow,
            " and ".join(address.apis),
            intake,
            lambda: slow.open_connections + (len(lane.connections) if lane is not None else 0),
            lambda: too_many(intake.full(), self._http, self._ids()),
        )

    async def _bind(self, address: Address, make: Admission, context: ssl.SSLContext | None) -> None:
        patience = self._settings.server.header_timeout
        try:
            listener = await listen(address, make, context, https_only(self._http, self._ids()), patience)
        except OSError as error:
            names = " and ".join(address.apis)
            raise OSError(f"the {names} API cannot listen on {address}: {error.strerror or error}") from None
        self._listeners.append(listener)
        url = address.host
        if not address.path:
            bound = listener.sockets[0].getsockname()
            shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            url = f"{'https' if address.tls else 'http'}://{shown}:{bound[1]}"
        for api in address.apis:
            self._on_bound(api, url)

    async def refuse(self) -> None:
        """Take no more connections than the kernel has let in already."""
        await self._take_accepted()
        for listener in self._listeners:
            listener.close()
        self._refusing = True
        if self._side is not None:
            self._side.close()
        if self._lane is not None:
            self._lane.close()
        await asyncio.sleep(0)  # who was taken last is connected in the next turn
        await self._await_side()

    async def _await_side(self) -> None:
        """What has been sent already is to be read, if that can be soon."""
        if self._completing is not None and any(slow.waiting for slow in self._slow):
            await asyncio.wait((self._completing,), timeout=FLUSH)

    async def _take_accepted(self) -> None:
        """Closing a listener resets the connections that it still holds, so take those first."""
        poll = select.poll()
        for listener in self._listeners:
            for each in listener.sockets:
                poll.register(each.fileno(), select.POLLIN)
        for _ in range(BACKLOG):  # uvloop takes one connection in a turn
            if not poll.poll(0):
                return
            await asyncio.sleep(0)

    async def last_call(self) -> None:
        """Time for requests that are on their way; those that come in it are told that the server is stopping."""
        lane = self._lane
        if any(slow.open_connections for slow in self._slow) or (lane is not None and lane.connections):
            await asyncio.sleep(LAST_CALL)

    async def drain(self) -> None:
        """Whoever is still sending, or reading an answer, gets a moment more."""
        await self._await_side()
        waits = [self._side.drain()] if self._side is not None else []
        if self._lane is not None:
            waits.append(self._lane.closed(FLUSH))
        await asyncio.gather(*waits, return_exceptions=True)

    async def cut(self) -> None:
        """End every connection that is left."""
        if self._completing is not None and not self._completing.done():
            self._completing.cancel()
            await asyncio.wait((self._completing,))
        if self._lane is not None:
            self._lane.abort()
        if self._side is not None:
            await self._side.cut()
