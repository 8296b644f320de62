"""Headers of answers that aiohttp sends: ``server.http_style``, CORS and preflights, for every app alike.

aiohttp adds headers of its own when an answer is sent, so what TorchServe sends, byte for byte, can be put together
only behind that: :class:`_Bare` and :class:`_BareStream` are responses that do. The fast lane has the same in
:mod:`mlserve.rest.http1`.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs, web

from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.torchserve import HttpOptions
from mlserve.protocols.torchserve_texts import NO_CACHE, reason_phrase

if TYPE_CHECKING:
    from mlserve.rest.noting import AnswerNotes

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_LAST = ("content-length", "transfer-encoding", "connection")
_NOT_SENT = frozenset((*_LAST, "x-request-id", "date", "server", *(name.lower() for name, _ in NO_CACHE)))


class TooLarge(web.Response):
    """The server's own refusal of a body, as against a 413 of a handler: TorchServe's has no content."""


class HeaderStyle:
    """Makes answers look as the settings say. ``request_ids`` is for answers to what could not even be read."""

    def __init__(self, options: HttpOptions, request_ids: RequestIds | None = None) -> None:
        self.options = options
        self.notes: AnswerNotes | None = None  # who hears of each answer
        self._ids = request_ids or RequestIds()

    def dress(self, response: web.StreamResponse) -> web.StreamResponse:
        """The response to send instead of ``response``, which has not been sent."""
        if not isinstance(response, web.Response):
            return response
        if not self.options.torchserve_style:
            for name, value in self.options.cors:
                response.headers.setdefault(name, value)
            return response
        if isinstance(response, TooLarge):
            return _Bare(self, response, b"")
        return _Bare(self, response, response.body)

    def stream(self, headers: dict[str, str], content_type: str) -> web.StreamResponse:
        """A response whose body comes piece by piece."""
        stream = _BareStream(self) if self.options.torchserve_style else web.StreamResponse()
        if content_type:
            stream.headers["Content-Type"] = content_type
        stream.headers.update(headers)
        if not self.options.torchserve_style:
            stream.headers.extend(self.options.cors)
        return stream

    def arrange(self, headers: Any, request_id: str, keep_alive: bool, typed: bool) -> None:
        """Put headers in TorchServe's order and spelling. ``typed``: somebody chose the content type."""
        kept = [(name, value) for name, value in headers.items() if name.lower() not in _NOT_SENT]
        if typed:
            kept.sort(key=lambda pair: pair[0].lower() != "content-type")
        else:
            kept = [pair for pair in kept if pair[0].lower() != "content-type"]
        own = {name.lower() for name, _ in kept}
        framing = [(name, headers[name]) for name in ("content-length", "transfer-encoding") if name in headers]
        headers.clear()
        for name, value in kept:
            headers.add("content-type" if name.lower() == "content-type" else name, value)
        headers["x-request-id"] = request_id or self._ids()
        headers.extend([pair for pair in self.options.cors if pair[0] not in own])
        headers.extend(NO_CACHE)
        headers.extend(framing)
        headers["connection"] = "keep-alive" if keep_alive else "close"

    def preflight(self, handler: Callable[[web.BaseRequest], Any]) -> Callable[[web.BaseRequest], Any]:
        """``handler``, which no longer sees a browser's question whether it may ask something (CORS preflight).

        TorchServe knows no such question and answers it with the API description.
        """
        if self.options.torchserve_style or not self.options.cors:
            return handler

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            asked = hdrs.ORIGIN in request.headers and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
            if request.method == hdrs.METH_OPTIONS and asked:
                return web.Response(status=204)
            response: web.StreamResponse = await handler(request)
            return response

        return answer


class _Bare(web.Response):
    """What TorchServe would send for ``origin``."""

    def __init__(self, style: HeaderStyle, origin: web.Response, body: Any) -> None:
        reason = origin.reason
        if reason == _PHRASES.get(origin.status, ""):  # aiohttp's choice, so nobody's
            reason = reason_phrase(origin.status) if reason else reason
        super().__init__(status=origin.status, reason=reason, headers=origin.headers, body=body)
        self._style = style
        self._empty = isinstance(origin, TooLarge)
        self._typed = "Content-Type" in origin.headers
        if origin.keep_alive is False or origin.status >= 400:
            self.force_close()

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        if self._empty:
            self.headers.clear()
            self.headers["content-length"] = "0"
        else:
            request_id = self.headers.get("x-request-id", "")
            self._style.arrange(self.headers, request_id, bool(self.keep_alive), self._typed)


class _BareStream(web.StreamResponse):
    """A stream as TorchServe sends it: no reason phrase, and no content type but the handler's."""

    def __init__(self, style: HeaderStyle) -> None:
        super().__init__(status=200, reason="")
        self._style = style

    async def _prepare_headers(self) -> None:
        typed = "Content-Type" in self.headers
        await super()._prepare_headers()
        self._style.arrange(self.headers, self.headers.get("x-request-id", ""), bool(self.keep_alive), typed)
