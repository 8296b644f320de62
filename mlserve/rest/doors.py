"""The HTTP listeners of a server: which API is bound where, and how all of them close without losing a request.

Closing has three steps. ``refuse``: no new connections, and every answer from now on tells its client not to send
another request. ``drain``: a moment for requests that are on their way and for clients that read slowly. ``cut``: end.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import ssl
from collections.abc import Callable
from typing import Any

from aiohttp import web

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
from mlserve.rest.headers import HeaderStyle
from mlserve.rest.http1 import https_only, too_many
from mlserve.rest.inference import build_inference_app
from mlserve.rest.json_errors import JsonErrorsRunner
from mlserve.rest.lane import LAST_CALL, LaneShared, Limits
from mlserve.rest.listeners import Listener, listen
from mlserve.rest.management import build_management_app
from mlserve.rest.metrics import build_metrics_app
from mlserve.rest.noting import AnswerNotes
from mlserve.rest.shared import SharedRunner
from mlserve.rest.workflows import WorkflowsApi
from mlserve.settings import Settings
from mlserve.wire.lending import LendingArena

_BOTH = ("inference", "management")
FLUSH = 2.0  # seconds at shutdown for clients that are still sending a request or reading an answer


class HttpDoors:
    """The inference, management and metrics APIs on their ports. ``on_bound`` is told each API's name and URL.

    ``guard`` lets nobody in who has no token; there is none where none are asked for. Large bodies are read into
    ``bodies``.
    """

    def __init__(
        self,
        settings: Settings,
        service: InferenceService,
        access: AccessLog | None,
        on_bound: Callable[[str, str], object],
        guard: TokenGuard | None = None,
        workflows: WorkflowsApi | None = None,
        bodies: LendingArena | None = None,
    ) -> None:
        self._bodies = bodies
        self._workflows = workflows
        self._settings = settings
        self._service = service
        self._access = access
        self._guard = guard
        self._on_bound = on_bound
        self._listeners: list[Listener] = []
        self._runners: list[JsonErrorsRunner] = []
        self._lane: LaneShared | None = None
        self._ids = RequestIds(settings.server.echo_request_id)
        self._style = HeaderStyle(HttpOptions.of(settings), self._ids)
        self._style.notes = AnswerNotes(service.http_counts, access)

    async def open(self) -> None:
        """Bind every address.

        Raises OSError that names the APIs and the address that cannot be had, and ``SettingError``.
        """
        addresses = listeners(self._settings)
        context = server_context(self._settings.tls) if any(address.tls for address in addresses) else None
        runners = await self._runners_by_api(shared=any(address.apis[:2] == _BOTH for address in addresses))
        for address in addresses:
            runner = runners[address.apis[0]]
            if len(address.apis) > 1:
                # As in TorchServe the metrics are there as well, also when they have an address of their own.
                apis = runners if address.apis[:2] == _BOTH else address.apis
                chosen = {api: runners[api] for api in apis}
                runner = await self._set_up(SharedRunner(chosen, self._style, **self._options))
            lane = self._fast_lane(runner) if "inference" in address.apis else None
            make = self._admission(address, lane or runner.server, runner.server)
            await self._bind(address, make, context if address.tls else None)

    async def _runners_by_api(self, shared: bool) -> dict[str, JsonErrorsRunner]:
        settings, server = self._settings, self._settings.server
        apps = {
            "inference": build_inference_app(
                self._service,
                self._style,
                self._ids,
                self._access,
                server.max_request_size,
                body_timeout=server.header_timeout,
                guard=self._guard,
                shared=shared,
                workflows=self._workflows,
            ),
            "management": build_management_app(self._service, settings, self._guard, self._workflows),
        }
        if settings.metrics.enabled:
            apps["metrics"] = build_metrics_app(self._service, settings)
        return {
            api: await self._set_up(JsonErrorsRunner(app, style=self._style, **self._options))
            for api, app in apps.items()
        }

    @property
    def _options(self) -> dict[str, Any]:
        """Of the connections that aiohttp serves."""
        server = self._settings.server
        return {
            "access_log": None,
            "handler_cancellation": True,
            "keepalive_timeout": server.keep_alive_timeout,
            "max_line_size": server.max_header_size,
            "max_field_size": server.max_header_size,
            "shutdown_timeout": FLUSH,
        }

    def _fast_lane(self, runner: web.AppRunner) -> Callable[[], asyncio.BaseProtocol] | None:
        server = self._settings.server
        slow = runner.server
        if not server.fast_lane or slow is None:
            return None
        limits = Limits(
            server.max_request_size, server.max_header_size, server.header_timeout, server.keep_alive_timeout
        )
        shared = self._lane = LaneShared(
            self._service, slow, self._access, self._style.options, self._ids, limits, self._guard, self._bodies
        )
        return lambda: FastLane(shared)

    def _admission(self, address: Address, make: Any, server: Any) -> Admission:
        intake, lane = self._service.intake, self._lane if make is not server else None
        return Admission(
            make,
            " and ".join(address.apis),
            intake,
            lambda: server.open_connections + (len(lane.connections) if lane is not None else 0),
            lambda: too_many(intake.full(), self._style.options, self._ids()),
        )

    async def _set_up(self, runner: JsonErrorsRunner) -> JsonErrorsRunner:
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def _bind(self, address: Address, make: Admission, context: ssl.SSLContext | None) -> None:
        patience = self._settings.server.header_timeout
        try:
            listener = await listen(address, make, context, https_only(self._style.options, self._ids()), patience)
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
