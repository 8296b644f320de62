"""What the connections of one listener share: routes, settings, the timer that ends stalled ones, the way to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from mlserve.core.intake import IntakeFull
from mlserve.core.service import InferenceService
from mlserve.log import AccessLog
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.tokens import TokenGuard
from mlserve.protocols.torchserve import HttpOptions
from mlserve.rest.http1 import heads_for
from mlserve.rest.routes import Route, RouteTable
from mlserve.rest.told import Told
from mlserve.wire.lending import LendingArena

SWEEP: Final = 1.0  # seconds between looks at all connections
_METHODS = frozenset((b"POST", b"GET", b"PUT"))
_TORCHSERVE_METHODS = _METHODS | {b"DELETE", b"PATCH"}  # there any method predicts but OPTIONS
LAST_CALL: Final = 0.25  # seconds that an idle connection stays open at shutdown: a request may be on its way
FLUSH: Final = 2.0  # seconds at shutdown for clients that are still sending a request or reading an answer


@dataclass(frozen=True)
class Limits:
    """Bounds on what a client may send: sizes in bytes, times in seconds."""

    max_request_size: int = 64 << 20
    max_header_size: int = 64 << 10
    header_timeout: float = 30.0
    keep_alive_timeout: float = 75.0

    def head_too_large(self) -> Refusal:
        """What to answer to a head beyond ``max_header_size``."""
        return Refusal(431, f"Request line and headers are larger than {self.max_header_size} bytes (max_header_size)")


class Connection(Protocol):
    """A client connection, as far as its listener deals with it."""

    def check_time(self, now: float) -> None:
        """Called once a second: end connections whose client stalls."""

    def last_call(self) -> None:
        """Close the connection if it owes nothing and, in a moment, is still owed nothing."""

    def cut(self) -> None:
        """End it now."""


class Refusal(Exception):
    """A request that is answered before it is complete."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def parse_error(error: Exception) -> Refusal:
    """What to answer when httptools raised ``error``, which may come from one of our callbacks."""
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    if isinstance(cause, IntakeFull):
        return Refusal(503, cause.message)
    return Refusal(400, f"Invalid HTTP message: {error}")


def authorization(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The raw ``Authorization`` header; empty if there is none."""
    return next((value for name, value in headers if name.lower() == b"authorization"), b"")


class LaneShared:
    """State of a listener. ``slow`` makes the protocol that takes over what the fast lane does not serve."""

    def __init__(
        self,
        service: InferenceService,
        slow: Callable[[], asyncio.BaseProtocol],
        access: AccessLog | None,
        options: HttpOptions,
        request_ids: RequestIds,
        limits: Limits,
        guard: TokenGuard | None = None,
        bodies: LendingArena | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.now = now
        self.bodies = bodies  # where workers find large ones
        self.guard = guard
        self.heads = heads_for(options)
        self.hot_methods = _TORCHSERVE_METHODS if options.torchserve_style else _METHODS
        self.service = service
        self.slow = slow
        self.access = access
        self.options = options
        self.particular = options.server_timing  # every answer has a header of its own
        self.typed_fields = options.typed_fields
        self.limits = limits
        self.routes = RouteTable(service)
        self._told = Told(service, options, limits.max_request_size)
        self.request_ids = request_ids
        self.connections: set[Connection] = set()
        self.closing = False
        self._empty = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self._sweeper = self.loop.call_later(SWEEP, self._sweep)

    def told(self, method: bytes, path: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Route | None:
        """The route of what is answered without a model. None where a token is asked for: aiohttp has the order."""
        return self._told.route(method, path, headers) if self.guard is None else None

    def _sweep(self) -> None:
        """One timer for all connections: a timer each would cost more than the requests."""
        now = self.now()
        for connection in list(self.connections):
            connection.check_time(now)
        self._sweeper = self.loop.call_later(SWEEP, self._sweep)

    def close(self) -> None:
        """Finish what is under way, close what is idle, answer the last ones with ``connection: close``."""
        self.closing = True
        for connection in list(self.connections):
            connection.last_call()

    def forget(self, connection: Connection) -> None:
        """The connection has ended, or is not of this lane any more."""
        self.connections.discard(connection)
        if self.closing and not self.connections:
            self._empty.set()

    async def closed(self, seconds: float) -> None:
        """After :meth:`close`: return when every connection has ended, or after so many seconds."""
        if self.connections:
            await asyncio.wait((asyncio.ensure_future(self._empty.wait()),), timeout=seconds)

    def abort(self) -> None:
        """Cut every connection that is left."""
        self._sweeper.cancel()
        for connection in list(self.connections):
            connection.cut()
