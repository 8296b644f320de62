"""One sequence of a stateful model, and how its requests are told: a header, or an id that the protocol carries."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from mlserve.core.job import Job
from mlserve.core.messages import InferenceRequest
from mlserve.core.ports import Cancellable, Slot


class SequenceHeaders(NamedTuple):
    """Names of the headers that tell a request's sequence, that open one, and that end some."""

    id: str = "ts_request_sequence_id"
    start: str = "ts_request_sequence_start"
    end: str = "ts_request_sequence_end"


SEQUENCE_HEADERS = SequenceHeaders()


class Sequence:
    """Requests that one worker computes one after the other, because the state between them is there.

    ``expired``: its time is over, so it takes no more requests and is closed once it has answered those it has.
    """

    __slots__ = ("closed", "expired", "id", "idle_since", "listed", "opened", "running", "slot", "timer", "waiting")

    def __init__(self, sequence_id: str, opened: float) -> None:
        self.id = sequence_id
        self.waiting: deque[Job] = deque()
        self.running = 0  # its requests in the worker
        self.slot: Slot | None = None  # the worker with its state; none before the first request is sent
        self.listed = False  # stands in a line of sequences that could send a request now
        self.opened = self.idle_since = opened
        self.expired = self.closed = False
        self.timer: tuple[float, Cancellable] | None = None  # when, and what

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return not self.waiting and not self.running

    def disarm(self) -> None:
        """Forget the timer."""
        if self.timer is not None:
            self.timer[1].cancel()
            self.timer = None


def identify(request: InferenceRequest, names: SequenceHeaders) -> str:
    """The id of the request's sequence, made here if it has none, and seen to that the handler sees it as a header.

    Headers are found whatever their case, because HTTP says so and proxies change it; handlers look for the name as it
    is configured, so it is added in that spelling.
    """
    header = names.id.encode("latin-1")
    exact = False
    found = request.sequence_id
    for name, value in request.headers:
        if name == header or name.lower() == header.lower():
            exact = exact or name == header
            found = found or value.decode("latin-1")
    if not found:
        found = f"ts-seq-{uuid.uuid4()}"
        exact = False
        request.own_headers([*request.headers, (names.start.encode("latin-1"), b"true")])
    if not exact:
        request.own_headers([*request.headers, (header, found.encode("latin-1", "replace"))])
    request.sequence_id = found
    return found


def ended_by(headers: Iterable[tuple[str, str]], name: str) -> list[str]:
    """The ids of the sequences that a handler ends with an answer's ``headers``."""
    found = ";".join(value for key, value in headers if key.lower() == name.lower())
    return [part.strip() for part in found.split(";") if part.strip()]
