"""Request bodies that stop coming: aiohttp waits for them for ever, and a client that says no more holds a connection.

The fast lane ends such connections from its own timer; this is the same for requests that aiohttp reads.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from mlserve.errors import InvalidInput


class BodyWatch:
    """Fails the reading of a body with status 408 once nothing of it has come for ``seconds``."""

    def __init__(self, request: web.Request, seconds: float) -> None:
        self._content = request.content
        self._seconds = seconds
        self._seen = self._content.total_bytes
        self._failed = False
        self._timer: asyncio.TimerHandle | None = None
        if not self._content.is_eof():  # most bodies are there when their request is
            self._start()

    def _start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._check)

    def _check(self) -> None:
        if self._content.is_eof():
            return
        if self._content.total_bytes != self._seen:
            self._seen = self._content.total_bytes
            self._start()
            return
        self._failed = True
        message = f"The request did not arrive within {self._seconds:g} s (header_timeout)"
        self._content.set_exception(InvalidInput(message, status=408))

    def stop(self) -> None:
        """The request has been answered."""
        if self._timer is not None:
            self._timer.cancel()
        if self._failed:
            self._content.feed_eof()  # or aiohttp would wait for the rest before it closes
