"""A listener for gRPC: HTTP/2 connections on a TCP port or a unix socket, with TLS or without, and their closing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
from typing import Any

from mlserve.protocols.admission import Admission
from mlserve.protocols.unix_sockets import BACKLOG, UnixListener
from mlserve.rpc import stalls
from mlserve.rpc.connection import Connection
from mlserve.rpc.shared import Shared
from mlserve.settings.tree import UNIX

LAST_CALL = 0.25  # seconds in which a call that was on its way when a connection was told to end is still served
HANDSHAKE = 30.0  # seconds for TLS
SWEEP = 1.0  # seconds between two looks for clients that stall


class RpcServer:
    """``age`` and ``grace`` are in seconds: how long a connection may live, and its calls after that; 0 is for ever."""

    def __init__(self, shared: Shared, *, age: float = 0.0, grace: float = 0.0) -> None:
        self._shared = shared
        self._age = age
        self._grace = grace
        self._server: Any = None
        self._sweeper: asyncio.TimerHandle | None = None
        if age:
            shared.on_open = self._limit_age

    async def open(self, host: str, port: int, context: ssl.SSLContext | None) -> int:
        """Listen; the port that it is. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._sweep()

        shared = self._shared
        make: Any = Admission(
            lambda: Connection(shared), shared.name, shared.intake, lambda: len(shared.connections), shared.farewell
        )

        if context is not None:
            context.set_alpn_protocols(["h2"])
        if host.startswith(UNIX):
            self._server = await UnixListener.open(host.removeprefix(UNIX), make, context)
            return 0
        limit = HANDSHAKE if context is not None else None
        try:
            self._server = await loop.create_server(
                make, host, port, ssl=context, ssl_handshake_timeout=limit, backlog=BACKLOG
            )
        except OSError as error:  # the loop's own text names the address once more
            raise OSError(error.errno, os.strerror(error.errno) if error.errno else str(error)) from None
        for each in self._server.sockets:  # its connections have it from there: hosts that are gone are found out
            each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return int(self._server.sockets[0].getsockname()[1])

    def _sweep(self) -> None:
        """Once a second, to the end of the server."""
        loop = asyncio.get_running_loop()
        stalls.sweep(self._shared, loop.time())
        self._sweeper = loop.call_later(SWEEP, self._sweep)

    def _limit_age(self, connection: Connection) -> asyncio.TimerHandle:
        """All clients that came together should not go together, so the age varies by a tenth."""
        varied = self._age * random.uniform(0.9, 1.1)  # noqa: S311  # nobody gains by guessing it
        return asyncio.get_running_loop().call_later(varied, self._retire, connection)

    def _retire(self, connection: Connection) -> None:
        connection.announce()
        loop = asyncio.get_running_loop()
        loop.call_later(LAST_CALL, connection.leave)
        if self._grace:
            connection.timer = loop.call_later(LAST_CALL + self._grace, connection.cut)

    def refuse(self) -> None:
        """Take no more connections, and after a moment no more calls."""
        if self._server is None:
            return
        self._server.close()
        loop = asyncio.get_running_loop()
        for connection in list(self._shared.connections):
            connection.announce()
            loop.call_later(LAST_CALL, connection.leave)

    async def drain(self, seconds: float) -> None:
        """Until all connections have ended, or for so long."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._shared.empty.wait(), seconds)

    def cut(self) -> None:
        """End every connection that is left."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._shared.connections):
            connection.cut()
