"""A server in the test's own event loop that answers as it is told to, for clients that must stand anything."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

Behaviour = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Request:
    """The head of a request, its body, and the how many-th it is of the server and of its connection, from 0."""

    head: bytes
    body: bytes
    number: int
    of_connection: int


@dataclass
class Place:
    """Where it listens and what came."""

    address: str
    requests: list[Request] = field(default_factory=list)
    connections: int = 0


async def answer_ok(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


@contextlib.asynccontextmanager
async def answering(
    behaviour: Behaviour = answer_ok, *, context: ssl.SSLContext | None = None, unix: str = ""
) -> AsyncIterator[Place]:
    """Serve on a free port of 127.0.0.1, or on a unix socket. ``behaviour`` writes the answer; a connection that it
    closes is closed."""
    place = Place("")
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        place.connections += 1
        number = 0
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError), contextlib.closing(writer):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.split(b"\r\n") if line[:15] == b"Content-Length:"), 0)
                request = Request(head, await reader.readexactly(length), len(place.requests), number)
                place.requests.append(request)
                number += 1
                await behaviour(request, writer)

    if unix:
        server = await asyncio.start_unix_server(serve, unix)
        place.address = f"unix:{unix}"
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        scheme = "http" if context is None else "https"
        place.address = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield place
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close one turn of the loop after they are told to
