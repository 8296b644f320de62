"""Errors of the aiohttp apps as JSON, wherever they arise.

aiohttp answers in two places by itself, with text or HTML: for exceptions that leave a handler, and, before any
handler runs, for bytes that are no HTTP or headers that are too long. A middleware covers the first, a connection
class the second; :class:`JsonErrorsRunner` is an ``AppRunner`` whose connections are of that class.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from mlserve.errors import ServeError
from mlserve.protocols.errors import INTERNAL_ERROR, METHOD_NOT_ALLOWED, ROUTE_NOT_FOUND, describe_error, error_body
from mlserve.protocols.errors import type_for_status as type_for
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.torchserve import HttpOptions
from mlserve.protocols.torchserve_texts import INVALID_HTTP
from mlserve.rest.headers import HeaderStyle, TooLarge
from mlserve.rest.request_keys import REQUEST_ID, STARTED
from mlserve.rest.stalls import BodyWatch

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


_FIXED = {404: ROUTE_NOT_FOUND, 405: METHOD_NOT_ALLOWED}


def error_response(status: int, type_name: str, message: str) -> web.Response:
    """The JSON error body with its status."""
    return web.Response(status=status, body=error_body(status, type_name, message), content_type="application/json")


def too_large_response(message: str) -> web.Response:
    """The refusal of a request body."""
    return TooLarge(status=413, body=error_body(413, type_for(413), message), content_type="application/json")


def serve_error_response(error: ServeError, *, detail: str = "none", handler_status: int = 500) -> web.Response:
    """A :class:`ServeError` as a response; ``detail`` is the setting ``server.error_detail``."""
    response = error_response(*describe_error(error, detail=detail, handler_status=handler_status))
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if allowed := getattr(error, "allowed", ()):
        response.headers["Allow"] = ", ".join(allowed)
    return response


def http_exception_response(error: web.HTTPException, *, limit_setting: str) -> web.Response:
    """One of aiohttp's own failures in our words; ``limit_setting`` names what bounds the body, for a 413."""
    status = error.status
    message = _FIXED.get(status, error.text or error.reason)
    if status == 413:
        return too_large_response(f"The request body is larger than allowed; the limit is {limit_setting}")
    response = error_response(status, type_for(status), message)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def json_errors(
    *,
    detail: str = "none",
    limit_setting: str = "server.max_request_size",
    request_ids: RequestIds | None = None,
    body_timeout: float = 30.0,
    max_body: int = 0,
) -> Any:
    """The middleware next to an app's handlers: every exception as the JSON body, a request id on every answer.

    The id is in ``request[REQUEST_ID]`` for the handlers. ``body_timeout`` is in seconds without a byte.
    A body that is announced with more than ``max_body`` bytes, unless that is 0, is refused before it has come.
    """

    ids = request_ids or RequestIds()

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = ids(request.headers.get("x-request-id", "").encode("utf-8", "replace"))
        request[REQUEST_ID] = request_id
        request[STARTED] = time.monotonic()
        watch = BodyWatch(request, body_timeout)
        try:
            if 0 < max_body < (request.content_length or 0):  # there is no need to wait for it
                raise web.HTTPRequestEntityTooLarge(max_body, request.content_length or 0)
            response = await handler(request)
        except ServeError as error:
            response = serve_error_response(error, detail=detail)
        except web.HTTPException as error:
            response = http_exception_response(error, limit_setting=limit_setting)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            gone = request.transport is None or request.transport.is_closing()
            if gone and isinstance(error, ConnectionResetError):
                raise asyncio.CancelledError from None  # as aiohttp itself ends a request whose client has gone
            log.exception("request %s: %s %s failed", request_id, request.method, request.path)
            response = error_response(500, type_for(500), INTERNAL_ERROR)
        finally:
            watch.stop()
        if response.status == 408:
            response.force_close()  # the rest of the request is not worth waiting for
        if not response.prepared:
            response.headers["x-request-id"] = request_id
            response.headers["Cache-Control"] = "no-cache; no-store, must-revalidate, private"
        return response

    return middleware


class JsonErrorsConnection(web.RequestHandler):
    """A connection that answers broken HTTP with the JSON body instead of a text or HTML page.

    While its server closes, every answer tells the client not to send another request here.
    """

    __slots__ = ("_server",)

    def __init__(self, server: JsonErrorsServer, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Called by aiohttp to send what a handler has returned, or one of its own failures before any handler ran."""
        if isinstance(resp, web.HTTPException):
            resp = http_exception_response(resp, limit_setting="server.max_request_size")
        if self._server.closing:
            resp.force_close()
        if not resp.prepared:
            resp = self._server.style.dress(resp)
        sent = await super().finish_response(request, resp, start_time)
        if (notes := self._server.style.notes) is not None:
            notes.note(request, resp)
        return sent

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called by aiohttp where no handler can: parse errors, and failures past the middleware."""
        if request.writer is not None and request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already; the connection can only be closed")
        if status >= 500:
            log.error("request from %s failed", request.remote, exc_info=exc)
            text = INTERNAL_ERROR
        else:
            log.debug("request from %s refused: %s", request.remote, message or exc)
            text = INVALID_HTTP
            if message and not self._server.style.options.torchserve_style:
                text += f" {message.strip().splitlines()[0]}"
        response = error_response(status, type_for(status), text)
        response.force_close()
        return response


class JsonErrorsServer(web.Server):
    """Makes a :class:`JsonErrorsConnection` for each accepted socket."""

    closing = False
    style: HeaderStyle

    @property
    def open_connections(self) -> int:
        """How many there are: ``connections`` makes a list."""
        return len(self._connections)

    def __call__(self) -> web.RequestHandler:
        """The protocol of a new connection."""
        return JsonErrorsConnection(self, loop=self._loop, **self._kwargs)


class JsonErrorsRunner(web.AppRunner):
    """``AppRunner`` with connections that never show aiohttp's own error pages, and answers in ``style``."""

    __slots__ = ("_style",)

    def __init__(self, app: web.Application, *, style: HeaderStyle | None = None, **options: Any) -> None:
        super().__init__(app, **options)
        self._style = style or HeaderStyle(HttpOptions())

    def close(self) -> None:
        """From now on each answer is the last one of its connection; idle ones stay until :meth:`cleanup`."""
        if isinstance(self.server, JsonErrorsServer):
            self.server.closing = True

    def cut(self) -> None:
        """End every connection now."""
        for connection in self.server.connections if self.server is not None else ():
            connection.force_close()

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        server = JsonErrorsServer(
            self._style.preflight(plain.request_handler),
            request_factory=plain.request_factory,
            handler_cancellation=plain.handler_cancellation,
            loop=plain._loop,
            **plain._kwargs,
        )
        server.style = self._style
        return server
