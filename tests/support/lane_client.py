"""A connection of the fast lane without a socket: what a client sends, what it gets, and the worker behind it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from mlserve.core.messages import BatchReport, InferenceResponse
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.core.service import InferenceService
from mlserve.errors import ServeError
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.torchserve import HttpOptions
from mlserve.rest.fast import FastLane
from mlserve.rest.lane import LaneShared, Limits
from support.core_fakes import FakeClock, FakeSlot

MIB = 1 << 20
LIMITS = Limits(max_request_size=200_000, max_header_size=4096, header_timeout=30.0, keep_alive_timeout=75.0)


class Transport:
    """Keeps what is written. ``reads`` tells whether the client takes it."""

    def __init__(self) -> None:
        self.written = b""
        self.reads = True
        self.reading = True
        self.closed = self.aborted = False

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1)

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, pieces: list[bytes]) -> None:
        self.written += b"".join(pieces)

    def get_write_buffer_size(self) -> int:
        return 0 if self.reads else len(self.written)

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


class Pool:
    """Workers that never come by themselves: the test brings a slot."""

    target = 1

    def describe(self) -> list[Any]:
        return []


class Client:
    """A connection to the lane, the worker behind it, and the time."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        engine: Any = SimpleNamespace(open=lambda spec, events: Pool())
        self.service = InferenceService(engine, SimpleNamespace(), self.clock)  # type: ignore[arg-type]
        handle = self.service._open(ModelSpec(ModelKey("m", "1"), "/x", "h"))
        self.queue = handle.queue
        self.slot = FakeSlot(handle.queue)
        self.queue.slot_ready(self.slot)
        self.shared = LaneShared(self.service, lambda: None, None, HttpOptions(), RequestIds(), LIMITS)  # type: ignore[arg-type, return-value]
        self.transport = Transport()
        self.lane = FastLane(self.shared)
        self.lane.connection_made(self.transport)  # type: ignore[arg-type]

    def send(self, data: bytes) -> None:
        self.lane.data_received(data)
        self.clock.turn()

    def answer(self, result: InferenceResponse | ServeError, position: int = 0) -> None:
        batch = self.slot.batches.pop(position)
        self.queue.batch_done(self.slot, batch, [result], BatchReport())

    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", self.transport.written)]


def with_client(test: Callable[[Client], None]) -> None:
    async def run() -> None:
        client = Client()
        try:
            test(client)
        finally:
            client.shared.abort()

    asyncio.run(run())


def post(body: bytes = b"x", path: str = "/predictions/m", version: str = "1.1") -> bytes:
    return f"POST {path} HTTP/{version}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


OK = InferenceResponse(b"ok")
