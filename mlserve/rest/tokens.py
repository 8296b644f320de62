"""Tokens at the doors of aiohttp: who is asked for one, and the route that renews them.

The check comes before routing, so a caller without a token does not learn which models or paths there are. Open to
everybody is only what describes the API itself.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from mlserve.protocols.tokens import TokenGuard
from mlserve.rest.json_errors import Handler


def token_check(guard: TokenGuard | None, api: str) -> Any:
    """The middleware that lets requests of ``api`` ("inference" or "management") pass; goes inside ``json_errors``."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if guard is None:
            return await handler(request)
        path = request.rel_url.raw_path.rstrip("/")
        if path == "/api-description" or (not path and request.method == "OPTIONS"):
            return await handler(request)
        value = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if api == "management" and path == "/token":
            guard.renew(request.rel_url.query.get("type", ""), value)
            return web.Response(
                body=b"\n", content_type="application/json"
            )  # TorchServe's answer; the file has the key
        guard.check(api, value)
        return await handler(request)

    return middleware
