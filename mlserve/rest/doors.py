"""The HTTP listeners of a server: which API is bound where, and how all of them close without losing a request.

Closing has three steps. ``refuse``: no new connections, and every answer from now on tells its client not to send
another request. ``drain``: a moment for requests that are on their way and for clients that read slowly. ``cut``: end.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable
from typing import Any

from aiohttp import web

from mlserve.core.service import InferenceService
from mlserve.log import AccessLog
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.tokens import TokenGuard
from mlserve.protocols.torchserve import HttpOptions
from mlserve.rest.fast import FastLane
from mlserve.rest.headers import HeaderStyle
from mlserve.rest.inference import build_inference_app
from mlserve.rest.json_errors import JsonErrorsRunner
from mlserve.rest.lane import LAST_CALL, LaneShared, Limits
from mlserve.rest.management import build_management_app
from mlserve.rest.metrics import build_metrics_app
from mlserve.settings import Settings

BACKLOG = 1024  # connections that the kernel holds for a listener
FLUSH = 2.0  # seconds at shutdown for clients that are still sending a request or reading an answer


class HttpDoors:
    """The inference, management and metrics APIs on their ports. ``on_bound`` is told each API's name and URL.

    ``guard`` lets nobody in who has no token; there is none where none are asked for.
    """

    def __init__(
        self,
        settings: Settings,
        service: InferenceService,
        access: AccessLog | None,
        on_bound: Callable[[str, str], object],
        guard: TokenGuard | None = None,
    ) -> None:
        self._settings = settings
        self._service = service
        self._access = access
        self._guard = guard
        self._on_bound = on_bound
        self._listeners: list[asyncio.Server] = []
        self._runners: list[JsonErrorsRunner] = []
        self._lane: LaneShared | None = None
        self._ids = RequestIds(settings.server.echo_request_id)
        self._style = HeaderStyle(HttpOptions.of(settings), self._ids)

    async def open(self) -> None:
        """Bind every address. Raises OSError that names the API and the address that cannot be had."""
        settings, server = self._settings, self._settings.server
        options = HttpOptions.of(settings)
        ids = RequestIds(server.echo_request_id)
        self._style = HeaderStyle(options, ids)
        inference = await self._runner(
            build_inference_app(
                self._service,
                self._style,
                ids,
                self._access,
                server.max_request_size,
                server.header_timeout,
                self._guard,
            )
        )
        await self._bind("inference", inference, self._fast_lane(inference, options, ids))
        await self._bind("management", await self._runner(build_management_app(self._service, settings, self._guard)))
        if settings.metrics.enabled:
            await self._bind("metrics", await self._runner(build_metrics_app(self._service, settings)))

    def _fast_lane(
        self, runner: web.AppRunner, options: HttpOptions, ids: RequestIds
    ) -> Callable[[], asyncio.BaseProtocol] | None:
        server = self._settings.server
        slow = runner.server
        if not server.fast_lane or slow is None:
            return None
        limits = Limits(
            server.max_request_size, server.max_header_size, server.header_timeout, server.keep_alive_timeout
        )
        shared = self._lane = LaneShared(self._service, slow, self._access, options, ids, limits, self._guard)
        return lambda: FastLane(shared)

    async def _runner(self, app: web.Application) -> JsonErrorsRunner:
        server = self._settings.server
        runner = JsonErrorsRunner(
            app,
            style=self._style,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=server.keep_alive_timeout,
            max_line_size=server.max_header_size,
            max_field_size=server.max_header_size,
            shutdown_timeout=FLUSH,
        )
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def _bind(
        self, api: str, runner: JsonErrorsRunner, factory: Callable[[], asyncio.BaseProtocol] | None = None
    ) -> None:
        host, port = self._settings.server.address(api)
        make: Any = factory or runner.server
        try:
            listener = await asyncio.get_running_loop().create_server(make, host, port, backlog=BACKLOG)
        except OSError as error:
            raise OSError(f"the {api} API cannot listen on {host}:{port}: {error.strerror or error}") from None
        self._listeners.append(listener)
        bound = listener.sockets[0].getsockname()
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self._on_bound(api, f"http://{shown}:{bound[1]}")

    async def refuse(self) -> None:
        """Take no more connections than the kernel has let in already."""
        await self._take_accepted()
        for listener in self._listeners:
            listener.close()
        for runner in self._runners:
            runner.close()
        if self._lane is not None:
            self._lane.close()

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
        servers = [runner.server for runner in self._runners if runner.server is not None]
        if any(server.connections for server in servers) or (self._lane is not None and self._lane.connections):
            await asyncio.sleep(LAST_CALL)

    async def drain(self) -> None:
        """Whoever is still sending, or reading an answer, gets a moment more."""
        waits = [runner.cleanup() for runner in self._runners]
        if self._lane is not None:
            waits.append(self._lane.closed(FLUSH))
        await asyncio.gather(*waits, return_exceptions=True)

    async def cut(self) -> None:
        """End every connection that is left."""
        if self._lane is not None:
            self._lane.abort()
        for runner in self._runners:
            runner.cut()
            with contextlib.suppress(Exception):
                await runner.cleanup()
