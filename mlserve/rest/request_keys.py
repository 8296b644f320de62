"""What middlewares and handlers put on a request for each other."""

from __future__ import annotations

from typing import Any

from aiohttp import web


def request_key(name: str, kind: type[Any]) -> Any:
    """A key for what middlewares and handlers put on a request; aiohttp warns of plain strings since 3.14."""
    typed = getattr(web, "RequestKey", None)
    return typed(name, kind) if typed is not None else name


REQUEST_ID = request_key("request_id", str)
STARTED = request_key("started", float)  # when its handling began, on the monotonic clock
NOTED = request_key("noted", bool)  # it has its line in the access log
