"""The inference API on aiohttp: health, and every request that the fast lane does not serve itself.

It serves ``/predictions`` and ``/explanations`` as well, through the same codecs, so that the fast lane can be switched
off and a connection that was handed over goes on working.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any
from urllib.parse import unquote

from aiohttp import HttpVersion11, web

from mlserve.core.job import Job
from mlserve.core.messages import InferenceResponse
from mlserve.core.service import InferenceService
from mlserve.errors import ErrorKind, MethodNotAllowed, RouteNotFound, ServeError
from mlserve.log import AccessLog
from mlserve.protocols.errors import json_body
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.torchserve import Answer, Head, HttpOptions, decode, encode
from mlserve.rest.json_errors import REQUEST_ID, Handler, json_errors, request_key

SERVICE = web.AppKey("service", InferenceService)
OPTIONS = web.AppKey("options", HttpOptions)
MAX_REQUEST = web.AppKey("max_request_size", int)
JOB = request_key("job", Job)

_METHODS = ("GET", "POST", "PUT")


def build_inference_app(
    service: InferenceService,
    options: HttpOptions,
    request_ids: RequestIds,
    access: AccessLog | None,
    max_request_size: int,
    body_timeout: float = 30.0,
) -> web.Application:
    """The application; its errors are JSON and every request gets a line in the access log."""
    errors = json_errors(request_ids=request_ids, body_timeout=body_timeout)
    app = web.Application(middlewares=[_access_lines(access), errors], client_max_size=max_request_size)
    app[SERVICE] = service
    app[OPTIONS] = options
    app[MAX_REQUEST] = max_request_size
    app.router.add_route("*", "/ping", ping)
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/models/{name}/ready", model_ready)
    for verb in ("predictions", "explanations"):
        app.router.add_route("*", f"/{verb}/{{tail:.+}}", predict)
    app.router.add_route("*", "/{tail:.*}", not_found)
    return app


def _access_lines(access: AccessLog | None) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        response = await handler(request)
        if access is not None:
            job: Job | None = request.get(JOB)
            size = response.body_length if response.prepared else (response.content_length or 0)
            access.line(
                request.remote or "unix",
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


async def ping(request: web.Request) -> web.Response:
    """TorchServe's health check: 200 ``Healthy`` when every required model has a ready worker, else 500."""
    if request.app[SERVICE].health().ready:
        return _json(200, {"status": "Healthy"})
    return _json(500, {"status": "Unhealthy"})


async def live(request: web.Request) -> web.Response:
    """The process runs and its event loop turns."""
    return _json(200, {"live": True})


async def ready(request: web.Request) -> web.Response:
    """200 when every required model has a ready worker, else 503; with the state of each model."""
    health = request.app[SERVICE].health()
    return _json(200 if health.ready else 503, {"ready": health.ready, "models": health.models})


async def model_ready(request: web.Request) -> web.Response:
    """200 when the model's default version has a ready worker, else 503."""
    handle = request.app[SERVICE].find(request.match_info["name"])
    is_ready = handle.ready_workers > 0
    body = {"name": handle.key.name, "version": handle.key.version, "ready": is_ready, "state": handle.state.value}
    return _json(200 if is_ready else 503, body)


async def not_found(request: web.Request) -> web.Response:
    """Anything else."""
    raise RouteNotFound(request.path)


async def predict(request: web.Request) -> web.StreamResponse:
    """``/predictions|explanations/{model}[/{version}[/{url_path}]]``."""
    verb, name, version, url_path = _target(request)
    if request.method not in _METHODS:
        raise MethodNotAllowed("")
    service, options = request.app[SERVICE], request.app[OPTIONS]
    handle = service.find(name, version)
    head = Head(request.raw_headers)
    body = await _read(request)
    item = decode(
        head, request[REQUEST_ID], request.raw_headers, body, explain=verb == "explanations", url_path=url_path
    )
    stream: web.StreamResponse | None = None
    async for event in service.events(handle, item):
        if isinstance(event, Job):
            request[JOB] = event
            if stream is None:
                return _response(encode(event, options, head.timing))
            return await _end_stream(request, stream, event)
        if stream is None:
            stream = await _begin_stream(request, event.content_type)
        await stream.write(event.data)
    raise ServeError("The request ended without a result")


def _target(request: web.Request) -> tuple[str, str, str, str]:
    """Verb, model, version and the rest of the path, decoded after splitting: a name may hold an escaped slash."""
    segments = [unquote(segment) for segment in request.rel_url.raw_path.split("/", 4)[1:]]
    if not segments[1]:
        raise RouteNotFound(request.path)
    segments += [""] * (4 - len(segments))
    return segments[0], segments[1], segments[2], segments[3]


async def _read(request: web.Request) -> bytes:
    limit = request.app[MAX_REQUEST]
    if (request.content_length or 0) <= limit:  # else there is no need to read it
        with contextlib.suppress(web.HTTPRequestEntityTooLarge):
            return await request.read()
    raise ServeError(f"Request body is larger than {limit} bytes (max_request_size)", kind=ErrorKind.TOO_LARGE)


def _response(answer: Answer) -> web.Response:
    response = web.Response(status=answer.status, reason=answer.reason or None, body=answer.body)
    if answer.content_type:
        response.headers["Content-Type"] = answer.content_type
    for name, value in answer.headers:
        response.headers.add(name, value)
    return response


async def _begin_stream(request: web.Request, content_type: str) -> web.StreamResponse:
    stream = web.StreamResponse(headers={"ts_stream_next": "true", "x-request-id": request[REQUEST_ID]})
    if content_type:
        stream.headers["Content-Type"] = content_type
    if request.version >= HttpVersion11:
        stream.enable_chunked_encoding()
    else:
        stream.force_close()  # the end of the connection ends the body
    await stream.prepare(request)
    return stream


async def _end_stream(request: web.Request, stream: web.StreamResponse, job: Job) -> web.StreamResponse:
    if not isinstance(job.result, InferenceResponse):
        if request.transport is not None:
            request.transport.abort()  # no status can be sent any more; a broken body is how the client learns
        return stream
    if len(job.result.body):
        await stream.write(job.result.body)
    await stream.write_eof()
    return stream
