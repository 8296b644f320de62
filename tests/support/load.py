"""Steady load from a thread of the test: connections that send one request after the other and account for each.

A request is *failed* when its bytes were sent and no complete answer came, whatever the cause; a refused connection is
counted apart. The bodies of answers are kept, so that a test can tell who answered and when.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType


@dataclass(frozen=True)
class Answer:
    """One complete answer. Times are ``time.monotonic()``."""

    sent: float
    received: float
    status: int
    body: bytes


@dataclass
class Account:
    """What has become of every request."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    refused: int = 0

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    def since(self, moment: float) -> list[Answer]:
        """Answers to requests that were sent after ``moment``."""
        return [answer for answer in self.answers if answer.sent > moment]


class Load:
    """Use as a context manager; leaving it stops the load and waits for the last answers.

    ``fresh`` of the ``connections`` open a new connection for each request. ``pause`` is the seconds between an answer
    and the next request, so that two processor cores are left to the server. With ``until_refused`` a connection gives
    up for good when the server refuses it, as happens when it stops.
    """

    def __init__(
        self,
        port: int,
        path: str,
        *,
        body: bytes = b"x",
        connections: int = 8,
        fresh: int = 1,
        pause: float = 0.002,
        until_refused: bool = False,
    ) -> None:
        self.account = Account()
        self._port = port
        self._request = (
            f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/octet-stream\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._connections = connections
        self._fresh = fresh
        self._pause = pause
        self._until_refused = until_refused
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        until = time.monotonic() + 10
        while len(self.account.answers) < 2 * self._connections:
            assert time.monotonic() < until, f"the load does not get going: {self.account.failures[:5]}"
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._until_refused or kind is not None:
            self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "requests are still unanswered"

    async def _main(self) -> None:
        await asyncio.gather(*(self._client(number < self._fresh) for number in range(self._connections)))

    async def _client(self, fresh: bool) -> None:
        while not self._stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except (ConnectionRefusedError, ConnectionResetError):  # nothing was sent
                self.account.refused += 1
                if self._until_refused:
                    return
                await asyncio.sleep(0.01)
                continue
            try:
                more = True
                while more and not self._stop.is_set():
                    more = await self._exchange(reader, writer) and not fresh
                    await asyncio.sleep(self._pause)
            finally:
                writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; True if the connection may be used again."""
        if reader.at_eof():
            return False  # closed between requests, which is the server's right
        sent = time.monotonic()
        try:
            writer.write(self._request)
            status, headers, body = await asyncio.wait_for(read_answer(reader), 20)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError) as error:
            self.account.failures.append(f"{type(error).__name__}: {error}")
            return False
        self.account.answers.append(Answer(sent, time.monotonic(), status, body))
        return headers.get("connection") != "close"


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one HTTP/1.1 answer. Raises EOFError if it is cut short, ValueError for nonsense."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    version, status, *_ = head[0].split(" ")
    if version != "HTTP/1.1":
        raise ValueError(f"not HTTP: {head[0]!r}")
    headers = {}
    for line in head[1:-2]:
        name, separator, value = line.partition(":")
        if not separator:
            raise ValueError(f"not a header: {line!r}")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        return int(status), headers, await _chunked(reader)
    return int(status), headers, await reader.readexactly(int(headers.get("content-length", "0")))


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while True:
        size = int((await reader.readline()).strip() or b"-", 16)
        pieces.append(await reader.readexactly(size))
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk does not end where it should")
        if not size:
            return b"".join(pieces)
