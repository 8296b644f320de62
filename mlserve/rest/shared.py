"""Several APIs behind one listener: each request goes to the app that knows its path.

The apps stay as they are, with their own limits and error handling. Which of them is asked follows TorchServe: the
inference routes come first, then metrics, and the rest is management. A path like ``/models/m/1.0``, which TorchServe
refuses on a shared listener only because ``/models/m/invoke`` has as many segments, is management here as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from mlserve.protocols.inference_routes import find_route
from mlserve.rest.headers import HeaderStyle
from mlserve.rest.json_errors import JsonErrorsRunner


def api_of(target: str, open_inference: bool) -> str:
    """``inference``, ``management`` or ``metrics``, for a request target."""
    path = target.partition("?")[0]
    if find_route(path, open_inference) is not None:
        return "inference"
    return "metrics" if path.split("/")[1:2] == ["metrics"] else "management"


class SharedRunner(JsonErrorsRunner):
    """The runner of a listener with the APIs of ``runners``, which have been set up."""

    __slots__ = ("_runners",)

    def __init__(self, runners: Mapping[str, JsonErrorsRunner], style: HeaderStyle, **options: Any) -> None:
        super().__init__(web.Application(), style=style, **options)
        self._runners = runners

    async def _make_server(self) -> web.Server:
        server: Any = await super()._make_server()
        servers: dict[str, Any] = {api: runner.server for api, runner in self._runners.items()}
        fallback = next(iter(servers.values()))  # knows no path of an API that is not here, and says so
        open_inference = self._style.options.open_inference

        def make_request(message: Any, *rest: Any) -> Any:
            return servers.get(api_of(message.path, open_inference), fallback).request_factory(message, *rest)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            chosen = servers.get(api_of(request._message.path, open_inference), fallback)
            response: web.StreamResponse = await chosen.request_handler(request)
            return response

        server.request_factory = make_request
        server.request_handler = self._style.preflight(handle)
        return server  # type: ignore[no-any-return]
