"""What the connections of a gRPC listener have in common: methods, limits, and what a client is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlserve.core.intake import Intake
from mlserve.rpc import frames
from mlserve.rpc.stream import WINDOW

if TYPE_CHECKING:
    from mlserve.rpc.connection import Connection

MAX_STREAMS = 10_000  # calls at a time on a connection; those beyond it wait in their client
ROOM = 16 << 20  # bytes that all streams of a connection may send before we answer
DEFAULT_WINDOW = 65535  # bytes (RFC 9113, 6.9.2)


class Shared:
    """What the connections of a listener have in common. Sizes are in bytes, ``patience`` in seconds."""

    def __init__(
        self,
        methods: Mapping[str, Any],
        *,
        max_receive: int,
        max_headers: int,
        patience: float,
        intake: Intake | None = None,
        name: str = "gRPC",
    ) -> None:
        self.name = name
        self.methods = methods
        self.intake = intake or Intake()
        self.max_receive = max_receive
        self.max_headers = max_headers
        self.patience = patience
        self.connections: set[Connection] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self.on_open: Any = None  # called with each new connection; gives the timer that ends with it
        self.greeting = frames.settings_frame(
            {
                frames.MAX_STREAMS: MAX_STREAMS,
                frames.INITIAL_WINDOW: WINDOW,
                frames.MAX_HEADER_LIST: max_headers,
            }
        ) + frames.window_update(0, ROOM - DEFAULT_WINDOW)

    def farewell(self) -> bytes:
        """What is said to a client whose connection is one too many.

        Not with GOAWAY behind our settings: gRPC's clients take a connection that has those for a good one and open the
        next at once, hundreds a second. In HTTP/1.1 they report the status, and wait longer from time to time.
        """
        text = f"{self.intake.full().message}\n".encode()
        head = (
            b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: text/plain\r\nretry-after: 1\r\n"
        )
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(text), text)
