"""The inference API on aiohttp: health, and every request that the fast lane does not serve itself.

It serves ``/predictions`` and ``/explanations`` as well, through the same codecs, so that the fast lane can be switched
off and a connection that was handed over goes on working.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import HttpVersion11, hdrs, web

from mlserve import __version__
from mlserve.core.intake import Held
from mlserve.core.job import Job
from mlserve.core.messages import InferenceResponse
from mlserve.core.registry import VersionHandle
from mlserve.core.service import InferenceService
from mlserve.errors import ErrorKind, InvalidInput, MethodNotAllowed, RouteNotFound, ServeError
from mlserve.log import AccessLog
from mlserve.protocols import inference_routes as routes
from mlserve.protocols import openapi, openapi_torchserve
from mlserve.protocols import torchserve_texts as texts
from mlserve.protocols.errors import json_body
from mlserve.protocols.inference_routes import InferenceRoute
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.tokens import TokenGuard
from mlserve.protocols.torchserve import (
    WITHOUT_BODY,
    Answer,
    Head,
    HttpOptions,
    decode,
    encode,
    encode_error,
    stream_head,
)
from mlserve.rest.headers import HeaderStyle, TooLarge
from mlserve.rest.json_errors import Handler, json_errors, too_large_response
from mlserve.rest.large_body import LARGE
from mlserve.rest.noting import client_of
from mlserve.rest.request_keys import NOTED, REQUEST_ID, request_key
from mlserve.rest.tokens import token_check
from mlserve.rest.told import health_answer
from mlserve.rest.workflows import WorkflowsApi

JOB = request_key("job", Job)

_METHODS = ("GET", "POST", "PUT")


def build_inference_app(
    service: InferenceService,
    style: HeaderStyle,
    request_ids: RequestIds,
    access: AccessLog | None,
    max_request_size: int,
    body_timeout: float = 30.0,
    guard: TokenGuard | None = None,
    shared: bool = False,
    workflows: WorkflowsApi | None = None,
) -> web.Application:
    """The application; its errors are JSON and every request gets a line in the access log.

    ``shared``: the management API has the same address, and belongs in the API description.
    """
    errors = json_errors(request_ids=request_ids, body_timeout=body_timeout)
    app = web.Application(
        middlewares=[_access_lines(access), errors, token_check(guard, "inference")], client_max_size=max_request_size
    )
    api = InferenceApi(service, style, max_request_size, shared, workflows)
    app.router.add_route("*", "/{tail:.*}", api.answer, expect_handler=api.expect)
    return app


def _access_lines(access: AccessLog | None) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        response = await handler(request)
        if access is not None:
            request[NOTED] = True
            job: Job | None = request.get(JOB)
            size = response.body_length if response.prepared else (response.content_length or 0)
            access.line(
                client_of(request),
                request.method,
                request.path_qs,
                response.status,
                size,
                time.monotonic() - started,
                response.headers.get("x-request-id", "-"),
                job.timings if job is not None else None,
            )
        return response

    return middleware


def _json(status: int, value: object) -> web.Response:
    return web.Response(status=status, body=json_body(value), content_type="application/json")


class InferenceApi:
    """Answers what :func:`mlserve.protocols.inference_routes.find_route` knows."""

    def __init__(
        self,
        service: InferenceService,
        style: HeaderStyle,
        max_request: int,
        shared: bool,
        workflows: WorkflowsApi | None = None,
    ) -> None:
        self._workflows = workflows
        self._shared = shared
        self._service = service
        self._style = style
        self._options: HttpOptions = style.options
        self._max_request = max_request
        self._version = texts.TORCHSERVE_VERSION if style.options.torchserve_style else __version__
        self._actions: dict[str, Callable[[web.Request, InferenceRoute], Awaitable[web.StreamResponse]]] = {
            routes.PREDICT: self._predict,
            routes.WORKFLOW: self._workflow,
            routes.PING: self._health,
            routes.API: self._describe_api,
            routes.LIVE: self._health,
            routes.READY: self._health,
            routes.MODEL_READY: self._model_ready,
            routes.V2_SERVER: self._v2_server,
            routes.V2_LIVE: self._health,
            routes.V2_READY: self._health,
            routes.V2_VERSIONS: self._v2_versions,
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any request of the inference port: route, method, model, version and capacity are checked in this order."""
        route = routes.find_route(request.rel_url.raw_path, self._options.open_inference)
        action = self._actions.get(route.action) if route is not None else None
        if route is None or action is None:
            raise RouteNotFound(request.path)
        return await action(request, route)

    async def expect(self, request: web.Request) -> web.StreamResponse | None:
        """A client that asks before it sends its body: what is too large is refused at once."""
        if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
            raise web.HTTPExpectationFailed(text=f"Unknown Expect: {request.headers.get(hdrs.EXPECT)}")
        if (request.content_length or 0) > self._max_request:
            return too_large_response(self._too_large().message)
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper has not begun
        return None

    # -- inference ----------------------------------------------------------------------------------------------------

    async def _predict(self, request: web.Request, route: InferenceRoute) -> web.StreamResponse:
        name = route.name or ""
        try:
            if request.method == hdrs.METH_OPTIONS:
                return _json(200, self._model_document(self._find(request, route, b"").key.name))
            if request.method not in _METHODS and not self._options.torchserve_style:
                raise MethodNotAllowed("")
            named = route.name is not None or "model_name" in request.rel_url.query
            handle = self._find(request, route, b"") if named else None
            body = await self._read(request)
            handle = handle or self._find(request, route, body)
            name = handle.key.name
            return await self._infer(request, route, handle, body)
        except ServeError as error:
            return self._response(encode_error(error, self._options, name, route.version))

    async def _workflow(self, request: web.Request, route: InferenceRoute) -> web.StreamResponse:
        if self._workflows is None:
            raise RouteNotFound(request.path)
        return await self._workflows.predict(request, route.name or "", await self._read(request))

    def _find(self, request: web.Request, route: InferenceRoute, body: bytes | memoryview) -> VersionHandle:
        """The model of a request; ``/invocations`` names it in its query, in a form, or not if there is only one."""
        name = request.rel_url.query.get("model_name") if route.name is None else route.name
        if not name and route.name is None:
            started = {handle.key.name for handle in self._service.versions() if handle.spec.loaded_at_startup}
            name = started.pop() if len(started) == 1 else name
        if name is None and body:
            parts = decode(Head(request.raw_headers), "", (), body).parts
            fields = {part.name: part.data for part in parts}
            name = bytes(fields["model_name"]).decode("utf-8", "replace") if "model_name" in fields else None
        if name is None:
            raise InvalidInput(texts.MODEL_NAME_REQUIRED)
        return self._service.find(name, route.version)

    async def _infer(
        self, request: web.Request, route: InferenceRoute, handle: VersionHandle, body: bytes | memoryview
    ) -> web.StreamResponse:
        head = Head(request.raw_headers)
        item = decode(
            head,
            request[REQUEST_ID],
            (*request.raw_headers, *route.headers) if route.headers else request.raw_headers,
            body,
            explain=route.explain,
            url_path=route.url_path,
            query=request.rel_url.raw_query_string.encode("latin-1", "replace") if route.query else b"",
            version=route.version,
            typed_fields=self._options.typed_fields,
        )
        stream: web.StreamResponse | None = None
        async for event in self._service.events(handle, item):
            if isinstance(event, Job):
                request[JOB] = event
                if stream is None:
                    return self._response(encode(event, self._options, head.timing))
                return await _end_stream(request, stream, event)
            if stream is None:
                stream = await self._begin_stream(request, stream_head(event))
            await _write(request, stream, event.data)
        raise ServeError("The request ended without a result")

    async def _read(self, request: web.Request) -> bytes | memoryview:
        length = request.content_length
        if length is not None and length < LARGE and hdrs.CONTENT_ENCODING not in request.headers:
            return await request.read()
        if (length or 0) > self._max_request:  # there is no need to read it
            raise self._too_large()
        body = Held(self._service.intake)
        async for piece in request.content.iter_any():
            body.more(piece)
            if len(body) > self._max_request:
                raise self._too_large()
        return memoryview(body) if len(body) >= LARGE else bytes(body)

    def _too_large(self) -> ServeError:
        limit = self._max_request
        return ServeError(f"Request body is larger than {limit} bytes (max_request_size)", kind=ErrorKind.TOO_LARGE)

    def _response(self, answer: Answer) -> web.Response:
        reason = answer.reason if self._options.torchserve_style else answer.reason or None
        kind = TooLarge if answer.bare else web.Response
        # Of a memoryview aiohttp would choose a content type.
        body = answer.body if answer.content_type else bytes(answer.body)
        response = kind(status=answer.status, reason=reason, body=body)
        if answer.content_type:
            response.headers["Content-Type"] = answer.content_type
        for name, value in answer.headers:
            response.headers.add(name, value)
        return response

    async def _begin_stream(self, request: web.Request, head: Answer) -> web.StreamResponse:
        stream = self._style.stream({**dict(head.headers), "x-request-id": request[REQUEST_ID]}, head.content_type)
        reason = head.reason if self._options.torchserve_style else head.reason or None
        stream.set_status(head.status, reason)
        if stream.status in WITHOUT_BODY:
            stream.content_length = 0  # aiohttp sends it with a 205 only
        elif request.version >= HttpVersion11:
            stream.enable_chunked_encoding()
        else:
            stream.force_close()  # the end of the connection ends the body
        await stream.prepare(request)
        return stream

    # -- what the server tells of itself ------------------------------------------------------------------------------

    async def _health(self, request: web.Request, route: InferenceRoute) -> web.Response:
        if route.action in (routes.LIVE, routes.READY):
            _only_get(request)
        return _json(*health_answer(self._service, route.action))

    async def _model_ready(self, request: web.Request, route: InferenceRoute) -> web.Response:
        """200 when the model's default version has a ready worker, else 503."""
        _only_get(request)
        handle = self._service.find(route.name or "")
        is_ready = handle.ready_workers > 0
        body = {"name": handle.key.name, "version": handle.key.version, "ready": is_ready, "state": handle.state.value}
        return _json(200 if is_ready else 503, body)

    async def _describe_api(self, request: web.Request, route: InferenceRoute) -> web.Response:
        """``/api-description`` by any method, ``/`` by OPTIONS."""
        if request.path == "/" and request.method != hdrs.METH_OPTIONS:
            raise MethodNotAllowed("")
        if self._options.torchserve_style:
            of_torchserve = openapi_torchserve.single_listener_api if self._shared else openapi_torchserve.inference_api
            return _json(200, of_torchserve())
        document = openapi.inference_api(self._version)
        if self._shared:
            document["paths"] = {**openapi.management_api(self._version)["paths"], **document["paths"]}
        return _json(200, document)

    def _model_document(self, name: str) -> dict[str, Any]:
        if self._options.torchserve_style:
            return openapi_torchserve.predict_api(name)
        return openapi.model_api(name, self._version)

    async def _v2_server(self, request: web.Request, route: InferenceRoute) -> web.Response:
        return _json(200, texts.OPEN_INFERENCE_SERVER)

    async def _v2_versions(self, request: web.Request, route: InferenceRoute) -> web.Response:
        return _json(501, {"error": texts.NO_VERSIONING})


def _only_get(request: web.Request) -> None:
    if request.method not in ("GET", "HEAD"):
        raise RouteNotFound(request.path)


async def _write(request: web.Request, stream: web.StreamResponse, data: bytes | memoryview) -> None:
    """aiohttp writes what it is given, be there a place for it in the answer or not."""
    if len(data) and request.method != hdrs.METH_HEAD and stream.status not in WITHOUT_BODY:
        await stream.write(data)


async def _end_stream(request: web.Request, stream: web.StreamResponse, job: Job) -> web.StreamResponse:
    if not isinstance(job.result, InferenceResponse):
        if request.transport is not None:
            request.transport.abort()  # no status can be sent any more; a broken body is how the client learns
        return stream
    await _write(request, stream, job.result.body)
    await stream.write_eof()
    return stream
