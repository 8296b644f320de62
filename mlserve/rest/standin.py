"""What stands in for aiohttp until somebody needs it.

Importing aiohttp takes as long as importing the rest of the server, in the half second in which a first worker imports
its libraries. Connections for it are taken from the start, and wait, with what they have sent, while it is imported by
a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from mlserve.rest.json_errors import JsonErrorsServer
    from mlserve.rest.slow import SlowSide


class SlowDoor:
    """Makes the protocol of connections of one listener: aiohttp's where it is there, else one that waits for it.

    ``need`` is called for each that waits.
    """

    def __init__(self, need: Callable[[], object]) -> None:
        self._need = need
        self._server: JsonErrorsServer | None = None
        self._failed = False
        self.waiting: set[Waiting] = set()

    def __call__(self) -> asyncio.BaseProtocol:
        """The protocol of a new connection, or of one that the fast lane hands over."""
        if self._server is not None:
            return self._server()
        self._need()
        return Waiting(self)

    @property
    def open_connections(self) -> int:
        """How many there are."""
        return len(self.waiting) + (self._server.open_connections if self._server is not None else 0)

    def open(self, server: JsonErrorsServer) -> None:
        """``server`` is there, and gets everybody who waits for it."""
        self._server = server
        for connection in list(self.waiting):
            connection.go_on()

    def drop(self) -> None:
        """There is no server yet: end those who wait. Who comes next may have it tried again."""
        for connection in list(self.waiting):
            connection.go_on()

    def cut(self) -> None:
        """There will be no server: end those who wait, and those who come."""
        self._failed = True
        self.drop()

    def protocol(self) -> asyncio.Protocol | None:
        """Of somebody who has waited; None where nobody comes."""
        return self._server() if self._server is not None and not self._failed else None

    @property
    def decided(self) -> bool:
        """Whether waiting has an end."""
        return self._failed or self._server is not None


class Waiting(asyncio.Protocol):
    """A connection that waits. It reads once at most: the kernel, and so the client, keeps the rest."""

    def __init__(self, door: SlowDoor) -> None:
        self._door = door
        self._data: list[bytes] = []
        self._stuffed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected, or is handed over."""
        self._transport = cast(asyncio.Transport, transport)
        self._door.waiting.add(self)
        if self._door.decided:  # since this was made
            self.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._door.waiting.discard(self)

    def data_received(self, data: bytes) -> None:
        """The first that the client has sent."""
        self._data.append(data)
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """The client has not read what the fast lane answered."""
        self._stuffed = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._stuffed = False

    def go_on(self) -> None:
        """Waiting is over."""
        transport, protocol = self._transport, self._door.protocol()
        if protocol is None:
            transport.abort()
        if protocol is None or transport.is_closing():
            return
        self._door.waiting.discard(self)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._stuffed:
            protocol.pause_writing()
        if self._data:
            transport.resume_reading()
            protocol.data_received(b"".join(self._data))


def import_slow() -> type[SlowSide]:
    """Import what :class:`SlowDoor` stands in for; from any thread."""
    with _without_authorities():
        import aiohttp.connector  # noqa: F401
    from mlserve.rest.slow import SlowSide

    return SlowSide


@contextlib.contextmanager
def _without_authorities() -> Iterator[None]:
    """aiohttp's client, which comes with its server, makes a TLS context at import: 40 of the 210 ms that this takes,
    to read certificates of authorities that nobody asks for here (a download brings its own context). One without any
    does: it trusts nobody. Other threads get what they ask for meanwhile.
    """
    original = ssl.create_default_context
    importing = threading.get_ident()

    def trusting_nobody(*given: Any, **named: Any) -> ssl.SSLContext:
        if threading.get_ident() != importing:
            return original(*given, **named)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    ssl.create_default_context = trusting_nobody
    try:
        yield
    finally:
        ssl.create_default_context = original
