"""Workflows over HTTP: ``/workflows`` on the management API and ``/wfpredict/{name}`` on the inference API."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from aiohttp import web

from mlserve.core.workflows import WorkflowService
from mlserve.errors import InvalidInput, MethodNotAllowed, RouteNotFound
from mlserve.protocols import workflows as codec
from mlserve.protocols.errors import json_body
from mlserve.protocols.management import parse_list, read_parameters
from mlserve.protocols.torchserve import Head, decode
from mlserve.rest.request_keys import REQUEST_ID


class WorkflowsApi:
    """Answers both APIs' workflow routes. ``torchserve_style``: one segment too many is not looked at."""

    def __init__(self, workflows: WorkflowService, torchserve_style: bool = False) -> None:
        self._workflows = workflows
        self._longest = 2 if torchserve_style else 1

    def add_management_routes(self, app: web.Application) -> None:
        """Before the routes that catch everything."""
        app.router.add_route("*", "/workflows", self.manage)
        app.router.add_route("*", "/workflows/{rest:.*}", self.manage)

    async def manage(self, request: web.Request) -> web.Response:
        """``GET|POST /workflows``, ``GET|DELETE /workflows/{name}``."""
        segments = [unquote(segment) for segment in request.rel_url.raw_path.split("/")[2:] if segment]
        if len(segments) > self._longest:
            raise RouteNotFound(request.path)
        if not segments:
            if request.method == "GET":
                page = parse_list({name: request.rel_url.query[name] for name in request.rel_url.query})
                return _json(codec.list_json(self._workflows.list_workflows(), page.limit, page.offset))
            if request.method == "POST":
                return await self._register(request)
        elif request.method == "GET":
            return _json(codec.describe_json(self._workflows.find(segments[0])))
        elif request.method == "DELETE":
            await self._workflows.unregister(segments[0])
            return _status(codec.unregistered_text(segments[0]))
        raise MethodNotAllowed("")

    async def _register(self, request: web.Request) -> web.Response:
        query = {name: request.rel_url.query[name] for name in request.rel_url.query}
        body = await request.read()
        parameters = read_parameters(query, request.headers.get("Content-Type", ""), body)
        url = parameters.get("url")
        if not isinstance(url, str):
            raise InvalidInput("Parameter url is required.")
        workflow = await self._workflows.register(
            url,
            str(parameters.get("workflow_name") or ""),
            overrides=codec.timeouts(parameters),
            s3_sse_kms=str(parameters.get("s3_sse_kms", "")).lower() == "true",
        )
        return _status(codec.registered_text(workflow.name))

    async def predict(self, request: web.Request, name: str, body: bytes | memoryview) -> web.Response:
        """One request through the whole graph."""
        workflow = self._workflows.find(name)
        head = Head(request.raw_headers)
        item = decode(head, request[REQUEST_ID], request.raw_headers, body, url_path=None)
        answer = codec.encode(await self._workflows.predict(workflow, item))
        return web.Response(body=answer.body, headers={"Content-Type": answer.content_type})


def _json(value: Any) -> web.Response:
    return web.Response(body=json_body(value), content_type="application/json")


def _status(text: str) -> web.Response:
    return _json({"status": text})
