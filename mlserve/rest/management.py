"""The management API as an aiohttp app: one handler, because the paths are TorchServe's and not a router's.

TorchServe splits paths by hand (empty segments at the end do not count, anything may follow a version), so
:func:`mlserve.protocols.management.route` decides and :mod:`mlserve.protocols.actions` acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from mlserve import __version__
from mlserve.protocols import management as codec
from mlserve.protocols import openapi, openapi_torchserve
from mlserve.protocols.actions import ManagementActions, Result
from mlserve.protocols.errors import json_body
from mlserve.protocols.request_ids import RequestIds
from mlserve.rest.json_errors import json_errors
from mlserve.rest.tokens import token_check

if TYPE_CHECKING:
    from mlserve.core.service import InferenceService
    from mlserve.protocols.tokens import TokenGuard
    from mlserve.rest.workflows import WorkflowsApi
    from mlserve.settings import Settings

# A management body is a handful of parameters; models come by name or URL, never in the body.
MAX_BODY = 1 << 20


def build_management_app(
    service: InferenceService,
    settings: Settings,
    guard: TokenGuard | None = None,
    workflows: WorkflowsApi | None = None,
) -> web.Application:
    """The app for the management port. Reads ``settings.server`` and ``settings.models``."""
    limit = min(MAX_BODY, settings.server.max_request_size)
    app = web.Application(
        middlewares=[
            json_errors(
                detail=settings.server.error_detail,
                limit_setting=f"{limit} bytes for the management API",
                request_ids=RequestIds(settings.server.echo_request_id),
                body_timeout=settings.server.header_timeout,
                max_body=limit,
            ),
            token_check(guard, "management"),
        ],
        client_max_size=limit,
    )
    if workflows is not None:
        workflows.add_management_routes(app)
    lenient = settings.server.http_style == "torchserve"
    api = ManagementApi(ManagementActions(service, settings), lenient=lenient)
    app.router.add_route("*", "/{path:.*}", api.answer)
    return app


class ManagementApi:
    """Calls an action for each action of :func:`mlserve.protocols.management.route`."""

    def __init__(self, actions: ManagementActions, *, lenient: bool = False) -> None:
        self._actions = actions
        self._lenient = lenient

    async def answer(self, request: web.Request) -> web.Response:
        """Any request of the management port."""
        route = codec.route(request.method, request.rel_url.raw_path)
        body = await request.read()
        query = {name: request.rel_url.query[name] for name in request.rel_url.query}
        content_type = request.headers.get("Content-Type", "")
        parameters = codec.read_parameters(query, content_type, body, lenient=self._lenient)
        status, value = await self._act(route, parameters)
        return web.Response(status=status, body=json_body(value), content_type="application/json")

    async def _act(self, route: codec.Route, parameters: Mapping[str, Any]) -> Result:
        actions = self._actions
        match route.action:
            case "list":
                return await actions.list_models(parameters)
            case "register":
                return await actions.register(parameters)
            case "describe":
                return await actions.describe(route.name, route.version, parameters)
            case "scale":
                return await actions.scale(route.name, route.version, parameters)
            case "unregister":
                return await actions.unregister(route.name, route.version)
            case "set_default":
                return await actions.set_default(route.name, route.version)
            case "readiness":
                return await actions.readiness(route.name)
            case "model_api":
                await actions.describe(route.name, route.version)  # or there is none
                return 200, self._model_document(route.name)
            case _:
                return 200, self._document()

    def _document(self) -> dict[str, Any]:
        return openapi_torchserve.management_api() if self._lenient else openapi.management_api(__version__)

    def _model_document(self, name: str) -> dict[str, Any]:
        if self._lenient:
            return openapi_torchserve.model_management_api(name)
        return openapi.model_api(name, __version__)
