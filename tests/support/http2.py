"""An HTTP/2 client without a socket: what it says to a connection of ours, and the frames that it gets."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hpack import Decoder, Encoder

from mlserve.rpc import frames
from mlserve.rpc.connection import Connection
from mlserve.rpc.shared import Shared

METHOD = "/test.Service/Echo"
HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": METHOD,
    "content-type": "application/grpc",
    "te": "trailers",
}


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


class Wire:
    """The transport of a connection; keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = self.aborted = self.paused = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.written += line

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 5) if name == "peername" else None


class EchoMethod:
    """Answers a request with itself, at once or when told to; keeps the streams of clients that stream."""

    server_streaming = False

    def __init__(self, *, streaming: bool = False, later: bool = False) -> None:
        self.client_streaming = streaming
        self.later = later
        self.streams: list[Any] = []
        self.gone_streams = 0

    def open(self, stream: Any) -> None:
        stream.stream_messages()
        stream.owner = self
        self.streams.append(stream)

    def serve(self, stream: Any, message: Any) -> None:
        if self.later:
            stream.owner = self
            self.streams.append(stream)
        else:
            stream.answer(bytes(message))

    def gone(self) -> None:
        self.gone_streams += 1


class Client:
    """Needs a running event loop. ``take`` gives the frames since it was asked last."""

    def __init__(
        self, methods: Any = None, *, limit: int = 1 << 20, greet: bool = True, shared: Shared | None = None
    ) -> None:
        self.shared = shared or Shared(
            {METHOD: EchoMethod()} if methods is None else methods, max_receive=limit, max_headers=8192, patience=30.0
        )
        self.wire = Wire()
        self.connection = Connection(self.shared)
        self.connection.connection_made(self.wire)  # type: ignore[arg-type]
        self.encoder, self.decoder = Encoder(), Decoder()
        self.next = 1
        if greet:
            self.send(frames.PREFACE + frames.settings_frame({}))
            self.take()

    def send(self, data: bytes) -> None:
        self.connection.data_received(bytes(data))

    def begin(self, end: bool = False, **changed: str | None) -> int:
        """Headers of a call; a header that is None is left out. The number of the stream."""
        fields = {**HEADERS, **{name.replace("__", ":").replace("_", "-"): value for name, value in changed.items()}}
        block = self.encoder.encode([(name, value) for name, value in fields.items() if value is not None])
        number, self.next = self.next, self.next + 2
        self.send(frames.headers_frame(number, block, end))
        return number

    def data(self, number: int, data: bytes, end: bool = True) -> None:
        for at in range(0, len(data) or 1, frames.MAX_FRAME):
            piece = data[at : at + frames.MAX_FRAME]
            last = end and at + frames.MAX_FRAME >= len(data)
            self.send(frames.frame(frames.DATA, frames.END_STREAM if last else 0, number, piece))

    def call(self, message: bytes, **changed: str | None) -> int:
        number = self.begin(**changed)
        self.data(number, framed(message))
        return number

    def take(self) -> list[Frame]:
        found = list(split(bytes(self.wire.written)))
        self.wire.written.clear()
        return found

    def outcome(self, number: int) -> tuple[dict[str, str], bytes]:
        """The headers of a stream, first and last together, and its messages' bytes."""
        fields: dict[str, str] = {}
        data = b""
        for each in self.take():
            if each.stream == number and each.kind == frames.HEADERS:
                fields.update(self.decoder.decode(each.payload))
            elif each.stream == number and each.kind == frames.DATA:
                data += each.payload
        return fields, data

    def last(self) -> tuple[int, int]:
        """(kind, error) of the frame that was sent last."""
        frame = self.take()[-1]
        place = 4 if frame.kind == frames.GOAWAY else 0
        return frame.kind, struct.unpack_from(">I", frame.payload, place)[0]


def split(data: bytes) -> Iterator[Frame]:
    while data:
        high, low, kind, flags, number = frames.HEAD.unpack_from(data)
        end = frames.HEAD_SIZE + (high << 8 | low)
        yield Frame(kind, flags, number, data[frames.HEAD_SIZE : end])
        data = data[end:]


def framed(message: bytes, packed: bool = False) -> bytes:
    return bytes((packed,)) + len(message).to_bytes(4, "big") + message


def played(play: Callable[[], None]) -> None:
    """Run it where there is an event loop."""

    async def run() -> None:
        play()

    asyncio.run(run())
