"""Connections beyond ``server.max_connections``: they are taken, told why not, and ended.

Not left in the kernel's backlog, as some servers do: there a client, and a health check, waits until its own timeout
and learns nothing. Each listener has the whole number, so clients of one API take nothing from another's.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from typing import cast

from mlserve.core.intake import Intake

LINGER = (
    2.0  # seconds in which a client may read why, and is read: closing with bytes unread would reset its connection
)
LINGERING = 500  # connections that get them; beyond it, there is no time for manners
OTHER_FILES = 512  # of workers, models, logs


class Admission:
    """The protocol factory of a listener: ``factory``'s, or one that sends ``answer()`` and ends the connection.

    ``count`` tells the connections that the listener has, ``listener`` is what the log calls it.
    """

    def __init__(
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        listener: str,
        intake: Intake,
        count: Callable[[], int],
        answer: Callable[[], bytes],
    ) -> None:
        self._factory = factory
        self._listener = listener
        self._intake = intake
        self._answer = answer
        self._lingering: set[TurnedAway] = set()
        intake.listens(listener, count)

    def __call__(self) -> asyncio.BaseProtocol:
        """The protocol of a connection that has just been accepted."""
        if self.admits():
            return self._factory()
        return TurnedAway(self._answer(), self._lingering)

    def admits(self, more: int = 0) -> bool:
        """Whether there is room for one connection, besides ``more`` that nobody has counted yet."""
        return self._intake.admits(self._listener, more)


class TurnedAway(asyncio.Protocol):
    """A connection that is one too many."""

    def __init__(self, answer: bytes, others: set[TurnedAway]) -> None:
        self._answer = answer
        self._others = others
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        writer = cast(asyncio.Transport, transport)
        if len(self._others) >= LINGERING:
            writer.abort()
            return
        self._others.add(self)
        writer.write(self._answer)
        if writer.can_write_eof():
            writer.write_eof()
        self._timer = asyncio.get_running_loop().call_later(LINGER, writer.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has read, or had its time."""
        self._others.discard(self)
        if self._timer is not None:
            self._timer.cancel()


def allow_connections(number: int) -> int:
    """Raise this process's soft limit of open files for so many connections and some files, as far as the hard limit
    lets it. Returns for how many connections it is enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return number
    most = max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(most - OTHER_FILES, most // 2)
