"""What clients may make the server hold, all of them together: connections, and bytes of requests.

Every other limit is one request's or one connection's, and a client may open many. The doors ask here before they take
more. What a request of one read has is not counted: it is there already, and the model's queue bounds how many wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from mlserve.errors import ErrorKind, ServeError

log = logging.getLogger(__name__)

SPELL = 60.0  # seconds without a refusal, after which the next one is worth a line in the log again
RETRY_AFTER = 1.0  # seconds


class IntakeFull(ServeError):
    """The server holds as much as it is to hold."""

    kind = ErrorKind.OVERLOADED

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=RETRY_AFTER)


class Intake:
    """The limits, and what is counted against them. ``max_bytes``: of request bodies; 0 in both: any number."""

    def __init__(self, max_connections: int = 0, max_bytes: int = 0, now: Callable[[], float] = time.monotonic) -> None:
        self.max_connections = max_connections
        self.max_bytes = max_bytes
        self.held = 0  # bytes
        self.refused_bodies = 0
        self.connections: dict[str, Callable[[], int]] = {}  # how many there are, by what their listener is called
        self.refused_connections: dict[str, int] = {}
        self._now = now
        self._refused_at: dict[str, float] = {}

    def take(self, size: int) -> None:
        """Hold so many bytes more. Raises ``IntakeFull``."""
        held = self.held + size
        if 0 < self.max_bytes < held:
            self.refused_bodies += 1
            self._note(
                "bodies",
                f"requests are refused: those that are held have {self.held} bytes already, of at most "
                f"{self.max_bytes} (server.max_request_memory)",
            )
            raise IntakeFull(
                f"The requests that are held would have more than {self.max_bytes} bytes (max_request_memory)"
            )
        self.held = held

    def give(self, size: int) -> None:
        """Hold so many bytes less."""
        self.held -= size

    def listens(self, listener: str, connections: Callable[[], int]) -> None:
        """There is a listener of that name."""
        self.connections[listener] = connections
        self.refused_connections[listener] = 0

    def admits(self, listener: str, more: int = 0) -> bool:
        """Whether a listener is to take one more connection, besides ``more`` that it has and does not count."""
        connections = self.connections[listener]() + more
        if not 0 < self.max_connections <= connections:
            return True
        self.refused_connections[listener] += 1
        self._note(
            listener, f"connections of the {listener} API are refused: it has {connections} (server.max_connections)"
        )
        return False

    def full(self) -> IntakeFull:
        """What a client is told whose connection is refused."""
        return IntakeFull(f"More than {self.max_connections} connections (max_connections)")

    def _note(self, what: str, line: str) -> None:
        """Log a refusal, if it is the first in a while: of thousands a second nobody reads the second line."""
        now = self._now()
        if now - self._refused_at.get(what, -SPELL) >= SPELL:
            log.warning("%s", line)
        self._refused_at[what] = now


class Held(bytearray):
    """Bytes of a request, counted for as long as anybody has them or a view of them."""

    __slots__ = ("_counted", "_intake")

    def __init__(self, intake: Intake, size: int = 0) -> None:
        """``size`` bytes of 0. Raises ``IntakeFull``."""
        self._counted = 0
        self._intake = intake
        intake.take(size)
        self._counted = size
        super().__init__(size)

    @classmethod
    def of(cls, intake: Intake, data: bytes | bytearray | memoryview) -> Held:
        """A copy. Raises ``IntakeFull``."""
        held = cls(intake)
        held.more(data)
        return held

    def more(self, data: bytes | bytearray | memoryview) -> None:
        """Append. Raises ``IntakeFull``."""
        size = len(data)
        self._intake.take(size)
        self._counted += size
        self.extend(data)

    def __del__(self) -> None:
        self._intake.give(self._counted)
