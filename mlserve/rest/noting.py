"""What is kept of each answer that aiohttp sends, whichever API it is of: a count, and a line in the access log.

It is done where the answer is sent, so that answers to requests that no handler has seen are in it. The inference app
writes its own access lines, with timings; the fast lane does both by itself.
"""

from __future__ import annotations

import time

from aiohttp import web

from mlserve.core.metrics import HttpCounts
from mlserve.log import AccessLog
from mlserve.rest.request_keys import NOTED, REQUEST_ID, STARTED


class AnswerNotes:
    """Notes answers in ``counts`` and, where it is to have the requests of every API, in ``access``."""

    def __init__(self, counts: HttpCounts, access: AccessLog | None) -> None:
        self._counts = counts
        self._access = access if access is not None and access.every_api else None

    def note(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """``response`` has been sent."""
        self._counts.count(response.status)
        if self._access is None or request.get(NOTED):
            return
        now = time.monotonic()
        self._access.line(
            client_of(request),
            request.method,
            request.path_qs,
            response.status,
            response.body_length,
            now - request.get(STARTED, now),
            str(request.get(REQUEST_ID, "")),
        )


def client_of(request: web.BaseRequest) -> str:
    """Address and port of the client; ``unix`` where it has none."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else request.remote or "unix"
