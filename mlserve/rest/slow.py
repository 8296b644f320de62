"""What aiohttp serves: the applications, and for each listener the server that knows those of its address.

aiohttp, and what else only these need, is half of the time that importing the server would take, and 10 MiB. Nothing
of it answers a prediction on the fast lane, so this module is imported when somebody asks for something else
(:mod:`mlserve.rest.standin`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from mlserve.core.service import InferenceService
from mlserve.core.workflows import WorkflowService
from mlserve.log import AccessLog
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.tokens import TokenGuard
from mlserve.protocols.torchserve import HttpOptions
from mlserve.rest.addresses import Address
from mlserve.rest.headers import HeaderStyle
from mlserve.rest.inference import build_inference_app
from mlserve.rest.json_errors import JsonErrorsRunner, JsonErrorsServer
from mlserve.rest.lane import FLUSH
from mlserve.rest.management import build_management_app
from mlserve.rest.metrics import build_metrics_app
from mlserve.rest.noting import AnswerNotes
from mlserve.rest.shared import SharedRunner
from mlserve.rest.workflows import WorkflowsApi
from mlserve.settings import Settings

_BOTH = ("inference", "management")


class SlowSide:
    """The parameters are those of :class:`mlserve.rest.doors.HttpDoors`; ``ids`` are shared with the fast lane."""

    def __init__(
        self,
        settings: Settings,
        service: InferenceService,
        access: AccessLog | None,
        guard: TokenGuard | None,
        workflows: WorkflowService | None,
        ids: RequestIds,
    ) -> None:
        self._settings = settings
        self._service = service
        self._access = access
        self._guard = guard
        in_style = settings.server.http_style == "torchserve"
        self._workflows = WorkflowsApi(workflows, in_style) if workflows is not None else None
        self._ids = ids
        self._style = HeaderStyle(HttpOptions.of(settings), ids)
        self._style.notes = AnswerNotes(service.http_counts, access)
        self._runners: list[JsonErrorsRunner] = []

    async def set_up(self, addresses: Sequence[Address]) -> list[JsonErrorsServer]:
        """The server of each address."""
        runners = await self._runners_by_api(shared=any(address.apis[:2] == _BOTH for address in addresses))
        servers: list[Any] = []
        for address in addresses:
            runner = runners[address.apis[0]]
            if len(address.apis) > 1:
                # As in TorchServe the metrics are there as well, also when they have an address of their own.
                apis = runners if address.apis[:2] == _BOTH else address.apis
                chosen = {api: runners[api] for api in apis}
                runner = await self._set_up(SharedRunner(chosen, self._style, **self._options))
            servers.append(runner.server)
        return servers

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
        """Of the connections."""
        server = self._settings.server
        return {
            "access_log": None,
            "handler_cancellation": True,
            "keepalive_timeout": server.keep_alive_timeout,
            "max_line_size": server.max_header_size,
            "max_field_size": server.max_header_size,
            "shutdown_timeout": FLUSH,
        }

    async def _set_up(self, runner: JsonErrorsRunner) -> JsonErrorsRunner:
        await runner.setup()
        self._runners.append(runner)
        return runner

    def close(self) -> None:
        """From now on each answer is the last one of its connection."""
        for runner in self._runners:
            runner.close()

    async def drain(self) -> None:
        """Whoever is still sending, or reading an answer, gets a moment more."""
        await asyncio.gather(*(runner.cleanup() for runner in self._runners), return_exceptions=True)

    async def cut(self) -> None:
        """End every connection that is left."""
        for runner in self._runners:
            runner.cut()
            with contextlib.suppress(Exception):
                await runner.cleanup()
