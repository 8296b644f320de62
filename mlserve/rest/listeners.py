"""Listening sockets: TCP, unix sockets, and TLS with an answer for those who speak plain HTTP to it.

A TLS listener accepts by itself, because it has to look at a connection's first byte before it knows what to make of
it, and once an event loop has made a transport of a socket it has also begun to read from it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Protocol

from mlserve.protocols.admission import Admission
from mlserve.protocols.unix_sockets import BACKLOG, UnixListener
from mlserve.rest.addresses import Address

log = logging.getLogger(__name__)

LINGER = 2.0  # seconds in which a refused client may read why
_HANDSHAKE = 0x16  # first byte of a TLS record that begins a connection (RFC 8446, 5.1)


class Listener(Protocol):
    """Something that accepts connections."""

    @property
    def sockets(self) -> Sequence[Any]:
        """The listening sockets."""

    def close(self) -> None:
        """Accept no more."""


async def listen(
    address: Address, factory: Admission, context: ssl.SSLContext | None, refusal: bytes, patience: float
) -> Listener:
    """Bind. With a ``context`` clients get ``patience`` seconds for their handshake, and ``refusal`` if they make none.

    Raises OSError.
    """
    make: Any = factory
    loop = asyncio.get_running_loop()
    if address.path:
        return await UnixListener.open(address.path, make)
    if context is None:
        return await loop.create_server(make, address.host, address.port, backlog=BACKLOG)
    return TlsListener(await _bind(address), make, context, refusal, patience)


async def _bind(address: Address) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            each = socket.socket(family, kind, protocol)
            bound.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind(where)
            each.listen(BACKLOG)
            each.setblocking(False)
    except OSError:
        for each in bound:
            each.close()
        raise
    return bound


class TlsListener:
    """Accepts, looks at the first byte, and hands the socket to the event loop's TLS."""

    def __init__(
        self, sockets: list[socket.socket], factory: Admission, context: ssl.SSLContext, refusal: bytes, patience: float
    ) -> None:
        self.sockets = sockets
        self._factory = factory
        self._context = context
        self._refusal = refusal
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._accepting = [self._loop.create_task(self._accept(each)) for each in sockets]
        self._greeting: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Accept no more."""
        for task in self._accepting:
            task.cancel()
        for each in self.sockets:
            self._loop.call_soon(each.close)  # once the tasks have let go of them

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(listening)
            except OSError as error:  # out of file descriptors: what waits in the backlog is not lost
                log.error("cannot accept a connection: %s", error)
                await asyncio.sleep(1.0)
                continue
            if not self._factory.admits(len(self._greeting)):  # nobody can be told anything before the handshake
                accepted.close()
                continue
            task = self._loop.create_task(self._greet(accepted))
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)

    async def _greet(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        try:
            first = await asyncio.wait_for(self._first_byte(accepted), self._patience)
            if first[:1] == bytes((_HANDSHAKE,)):
                make: Any = self._factory
                await self._loop.connect_accepted_socket(
                    make, accepted, ssl=self._context, ssl_handshake_timeout=self._patience
                )
                return
            if first:
                await asyncio.wait_for(self._refuse(accepted), LINGER)
        except (OSError, asyncio.TimeoutError) as error:  # ssl.SSLError is an OSError
            log.debug("a connection ended before its TLS handshake: %s", error)
        accepted.close()

    async def _first_byte(self, accepted: socket.socket) -> bytes:
        readable = asyncio.Event()
        self._loop.add_reader(accepted, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(accepted)
        return accepted.recv(1, socket.MSG_PEEK)

    async def _refuse(self, accepted: socket.socket) -> None:
        """A client still sending is read for a moment, or a reset would eat the answer."""
        await self._loop.sock_sendall(accepted, self._refusal)
        accepted.shutdown(socket.SHUT_WR)
        while await self._loop.sock_recv(accepted, 65536):
            pass
