"""What a runner needs of a client, whatever it speaks: slots that hold one exchange at a time, and what came of it.

Callbacks instead of a future for each request: at 30,000 requests a second a core has 33 microseconds for one, and a
task that waits costs a third of that.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from typing import Protocol

from mlserve.errors import ServeError

TIMEOUT = "timeout"
REFUSED = "connection refused"
CLOSED_EARLY = "connection closed before the answer"
UNTRUSTED = "certificate not trusted"
WRONG_ANSWER = "wrong answer"
NOT_SENT = "not sent"
EXAMPLE_LENGTH = 300  # characters of an error answer that are shown


class NoServer(ServeError):
    """Nothing answers at the address."""

    exit_code = 3


class Slot(Protocol):
    """One exchange at a time. ``intended`` and ``sent`` are moments of ``time.perf_counter()``."""

    intended: float
    sent: float
    busy: bool
    detail: str

    def send(self, number: int) -> None:
        """Send payload ``number``; the client's ``done`` is called when its fate is known, perhaps at once."""

    def abort(self, kind: str) -> None:
        """Give the exchange under way up: ``done`` is called with ``kind``."""

    def close(self) -> None:
        """Close without calling ``done``."""


Done = Callable[[Slot, str, float, float, int, bool], None]
"""(slot, kind of error or "", moment of the first byte, moment of the end, bytes of the body, came in pieces)."""


class Client(Protocol):
    """A target, opened."""

    def slot(self) -> Slot:
        """A new slot; it connects when it first sends."""

    async def close(self) -> None:
        """Release what slots share."""


def has_answered(kind: str) -> bool:
    """Whether an error of this kind is an answer, so that there is no reason to wait before the next request."""
    return kind == WRONG_ANSWER or kind.startswith("HTTP") or (kind.startswith("gRPC") and kind != "gRPC UNAVAILABLE")


def failure_of(error: BaseException) -> tuple[str, str]:
    """(kind, detail) of a connection that could not be made or broke."""
    if isinstance(error, ConnectionRefusedError):
        return REFUSED, str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return UNTRUSTED, error.verify_message
    if isinstance(error, ssl.SSLError):
        return "TLS failed", error.reason or str(error)
    if isinstance(error, ConnectionResetError):
        return "connection reset", str(error)
    if isinstance(error, TimeoutError):
        return "no connection in time", str(error)
    if isinstance(error, OSError):
        return "connection failed", str(error)
    return type(error).__name__, str(error)


def same_answer(body: bytes, expected: bytes) -> bool:
    """Whether an answer is the expected one: to the byte, but for a newline at the end of a text, or as JSON."""
    if body == expected or body == expected.removesuffix(b"\n"):  # editors end a file with one
        return True
    try:
        return bool(json.loads(body) == json.loads(expected))
    except ValueError:
        return False
