"""The management API as an aiohttp app: one handler, because the paths are TorchServe's and not a router's.

TorchServe splits paths by hand (empty segments at the end do not count, anything may follow a version), so
:func:`mlserve.protocols.management.route` decides and a table of actions answers. A change that was accepted is carried
out to its end, whether or not the client waits for it: a client that gives up must not leave a model half registered.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from mlserve import __version__
from mlserve.errors import MethodNotAllowed
from mlserve.protocols import management as codec
from mlserve.protocols import openapi
from mlserve.protocols.errors import json_body
from mlserve.protocols.request_ids import RequestIds
from mlserve.rest.json_errors import json_errors
from mlserve.rest.machine import gpu_usage

if TYPE_CHECKING:
    from mlserve.core.service import InferenceService
    from mlserve.settings import Settings

log = logging.getLogger(__name__)

# A management body is a handful of parameters; models come by name or URL, never in the body.
MAX_BODY = 1 << 20

Answer = tuple[int, Any]
T = TypeVar("T")


def build_management_app(service: InferenceService, settings: Settings) -> web.Application:
    """The app for the management port. Reads ``settings.server`` and ``settings.models.model_api``."""
    limit = min(MAX_BODY, settings.server.max_request_size)
    app = web.Application(
        middlewares=[
            json_errors(
                detail=settings.server.error_detail,
                limit_setting=f"{limit} bytes for the management API",
                request_ids=RequestIds(settings.server.echo_request_id),
                body_timeout=settings.server.header_timeout,
            )
        ],
        client_max_size=limit,
    )
    app.router.add_route("*", "/{path:.*}", ManagementApi(service, model_api=settings.models.model_api).answer)
    return app


class ManagementApi:
    """Calls the service for each action of :func:`mlserve.protocols.management.route`."""

    def __init__(self, service: InferenceService, *, model_api: bool) -> None:
        self._service = service
        self._model_api = model_api
        self._changes: set[asyncio.Task[Any]] = set()
        self._actions: Mapping[str, Callable[[codec.Route, dict[str, Any]], Awaitable[Answer]]] = {
            "api": self._api,
            "list": self._list,
            "register": self._register,
            "describe": self._describe,
            "scale": self._scale,
            "unregister": self._unregister,
            "set_default": self._set_default,
            "readiness": self._readiness,
            "model_api": self._describe_api,
        }

    async def answer(self, request: web.Request) -> web.Response:
        """Any request of the management port."""
        raw_path = request.rel_url.raw_path
        route = codec.route(request.method, raw_path)
        body = await request.read()
        query = {name: request.rel_url.query[name] for name in request.rel_url.query}
        parameters = codec.read_parameters(query, request.headers.get("Content-Type", ""), body)
        status, value = await self._actions[route.action](route, parameters)
        return web.Response(status=status, body=json_body(value), content_type="application/json")

    async def _api(self, route: codec.Route, parameters: dict[str, Any]) -> Answer:
        return 200, openapi.management_api(__version__)

    async def _describe_api(self, route: codec.Route, parameters: dict[str, Any]) -> Answer:
        self._service.find(route.name)
        return 200, openapi.model_api(route.name, __version__)

    async def _list(self, route: codec.Route, parameters: dict[str, Any]) -> Answer:
        return 200, codec.list_json(self._service.list_models(), codec.parse_list(parameters))

    async def _register(self, route: codec.Route, parameters: dict[str, Any]) -> Answer:
        self._check_model_api()
        _warn_unknown(parameters, codec.REGISTER_PARAMETERS)
        call = codec.parse_register(parameters)
        result = await self._to_the_end(
            self._service.register(
                call.url, call.overrides, initial_workers=call.initial_workers, synchronous=call.synchronous
            ),
            f"registering {call.url}",
        )
        if not result.done:
            return 202, codec.status_json(codec.PROCESSING)
        return 200, codec.status_json(codec.registered_text(result.key, result.workers))

    async def _describe(self, route: codec.Route, parameters: dict[str, Any]) -> Answer:
        models = self._service.describe(route.name, route.version)
        customized = None
        if str(parameters.get("customized", "")).lower() == "true" and route.version != "all":
            said = await self._service.describe_customized(route.name, route.version)
            customized = codec.customized_json(said.body)
        return 200, [codec.describe_json(model, gpu_usage, customized) for model in models]

    async def _scale(self, route: codec.Route, parameters: dict[str, Any]) -> Answer:
        _warn_unknown(parameters, codec.SCALE_PARAMETERS)
        call = codec.parse_scale(parameters)
        version = route.version or call.version
        result = await self._to_the_end(
            self._service.scale(
                route.name,
                version,
                min_workers=call.min_workers,
                max_workers=call.max_workers,
                synchronous=call.synchronous,
            ),
            f"scaling {route.name}",
        )
        if not result.done:
            return 202, codec.status_json(codec.PROCESSING)
        return 200, codec.status_json(codec.scaled_text(route.name, version, result.workers))

    async def _unregister(self, route: codec.Route, parameters: dict[str, Any]) -> Answer:
        self._check_model_api()
        await self._to_the_end(self._service.unregister(route.name, route.version), f"unregistering {route.name}")
        return 200, codec.status_json(codec.unregistered_text(route.name))

    async def _set_default(self, route: codec.Route, parameters: dict[str, Any]) -> Answer:
        self._service.set_default(route.name, route.version)
        return 200, codec.status_json(codec.default_text(route.name, route.version))

    async def _readiness(self, route: codec.Route, parameters: dict[str, Any]) -> Answer:
        self._service.find(route.name)
        return 200, {"name": route.name, "ready": self._service.health().models.get(route.name, False)}

    async def _to_the_end(self, change: Coroutine[Any, Any, T], what: str) -> T:
        """Wait for a change. If the request is cancelled meanwhile, the change goes on and its failure is logged."""
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda task: _log_failure(task, what))
            raise

    def _check_model_api(self) -> None:
        if not self._model_api:
            raise MethodNotAllowed(
                "Registering and unregistering models is switched off; models.model_api = true allows it"
            )


def _log_failure(task: asyncio.Task[Any], what: str) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s failed, with nobody waiting for it: %s", what, error)


def _warn_unknown(parameters: Mapping[str, Any], known: Sequence[str]) -> None:
    """TorchServe ignores what it does not know, so an error would break scripts; a misspelling must still show."""
    for name in parameters:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            log.warning("parameter %.80r ignored%s", name, f"; did you mean {near[0]!r}?" if near else "")
