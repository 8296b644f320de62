"""gRPC's HTTP/2: what a client may send in which form, what it gets, and what ends a stream or the connection."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.http2 import METHOD, Client, EchoMethod, Frame, framed, played

from mlserve.rpc import frames
from mlserve.rpc.frames import Error
from mlserve.rpc.shared import ROOM
from mlserve.rpc.stream import HELD, WINDOW

GOOD = {":status": "200", "content-type": "application/grpc", "grpc-accept-encoding": "identity, deflate, gzip"}


class Scribe(Client):
    """Only notes what it would say."""

    def __init__(self) -> None:
        self.said = bytearray()
        super().__init__()

    def send(self, data: bytes) -> None:
        self.said += data


def window(frame: Frame) -> int:
    return int.from_bytes(frame.payload, "big")


@pytest.mark.parametrize("size", [0, 1, 5000, 16379, 16380, 60_000])
def test_a_call_is_answered_with_headers_message_and_status(size: int) -> None:
    def play() -> None:
        client = Client()
        message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        number = client.call(message)
        assert client.outcome(number) == ({**GOOD, "grpc-status": "0"}, framed(message))
        assert not client.connection.streams

    played(play)


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_where_the_bytes_are_cut_changes_nothing(step: int) -> None:
    def play() -> None:
        client, scribe = Client(greet=False), Scribe()
        first, second = scribe.call(b"a" * 20_000), scribe.call(b"b")
        data = bytes(scribe.said)
        for at in range(0, len(data), step):
            client.send(data[at : at + step])
        found = client.take()
        assert {frame.stream for frame in found if frame.kind == frames.DATA} == {first, second}
        assert sum(len(frame.payload) for frame in found if frame.kind == frames.DATA) == 20_005 + 6
        assert not client.wire.closed

    played(play)


def test_padding_priority_and_continuation_are_understood() -> None:
    def play() -> None:
        client = Client()
        block = client.encoder.encode([(b":method", b"POST"), (b":scheme", b"http"), (b":path", METHOD.encode())])
        block += client.encoder.encode([(b"content-type", b"application/grpc")])
        payload = b"\x03" + b"\0" * 5 + block[:10] + b"\0" * 3
        client.send(frames.frame(frames.HEADERS, frames.PADDED | frames.HAS_PRIORITY, 1, payload))
        client.send(frames.frame(frames.CONTINUATION, 0, 1, block[10:20]))
        client.send(frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[20:]))
        padded = b"\x02" + framed(b"hello") + b"\0\0"
        client.send(frames.frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, padded))
        assert client.outcome(1) == ({**GOOD, "grpc-status": "0"}, framed(b"hello"))

    played(play)


def test_the_same_bytes_mean_other_headers_once_the_table_has_changed() -> None:
    """What is kept of a head must not outlive the table that its block refers to."""

    def play() -> None:
        client = Client({METHOD: EchoMethod(), "/other": EchoMethod()})
        references = b"\x83\x86\xc0\xbe\xbf"  # POST, http, and three of the table: 64, 62, 63
        literals = b"".join(
            b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value
            for name, value in ((b":path", METHOD.encode()), (b"content-type", b"application/grpc"), (b"te", b"x"))
        )
        client.send(frames.headers_frame(1, b"\x83\x86" + literals, end=False))
        for number in (3, 5):
            client.send(frames.headers_frame(number, references, end=False))
            client.data(number, framed(b"x"))
            assert client.outcome(number)[0]["grpc-status"] == "0"
        path = b"\x40\x05:path\x07/nobody"
        kind = b"\x40\x0ccontent-type\x10application/grpc"
        client.send(frames.headers_frame(7, b"\x83\x86" + path + kind + b"\x40\x02te\x01x", end=False))
        assert client.outcome(7)[0]["grpc-status"] == "12"
        client.send(frames.headers_frame(9, references, end=False))
        assert client.outcome(9)[0]["grpc-status"] == "12"

    played(play)


def test_a_change_of_the_tables_size_is_carried_out_each_time() -> None:
    """A block that was seen before is not decoded again, unless it says what fits into the table."""

    def play() -> None:
        client = Client()
        table = client.connection._heads._decoder.header_table
        call = b"\x83\x86\x44\x01/"
        for number, (update, size) in enumerate(((b"\x20", 0), (b"\x3f\xe1\x1f", 4096)) * 2):
            client.send(frames.headers_frame(2 * number + 1, update + call, end=False))
            assert table.maxsize == size
        assert not client.wire.closed

    played(play)


def test_a_large_answer_waits_for_room_in_both_windows() -> None:
    def play() -> None:
        client = Client()
        message = b"m" * 100_000
        number = client.call(message)
        got = sum(len(frame.payload) for frame in client.take() if frame.kind == frames.DATA)
        assert got == 65535
        client.send(frames.window_update(number, 50_000))
        assert not client.take(), "sent more than the connection's window"
        client.send(frames.window_update(0, 10_000))
        assert sum(len(frame.payload) for frame in client.take()) == 10_000
        client.send(frames.settings_frame({frames.INITIAL_WINDOW: 0}))  # makes the stream's window negative
        client.send(frames.window_update(0, 1 << 20))
        assert frames.DATA not in {frame.kind for frame in client.take()}
        client.send(frames.settings_frame({frames.INITIAL_WINDOW: 1 << 20}))
        found = client.take()
        assert sum(len(frame.payload) for frame in found if frame.kind == frames.DATA) == 100_005 - 75_535
        assert found[-1].flags & frames.END_STREAM
        assert not client.connection.streams

    played(play)


def test_frames_are_no_larger_than_the_client_takes() -> None:
    def play() -> None:
        client = Client()
        client.send(frames.window_update(0, 1 << 20) + frames.settings_frame({frames.INITIAL_WINDOW: 1 << 20}))
        client.take()
        client.call(b"m" * 50_000)
        sizes = [len(frame.payload) for frame in client.take() if frame.kind == frames.DATA]
        assert (sum(sizes), max(sizes)) == (50_005, frames.MAX_FRAME)

    played(play)


def test_a_client_that_streams_waits_while_nobody_takes_its_messages() -> None:
    def play() -> None:
        method = EchoMethod(streaming=True)
        client = Client({METHOD: method}, limit=8 << 20)
        number = client.begin()
        for size in (HELD - 100, 3 * HELD, HELD):
            client.data(number, framed(b"x" * size), end=False)
        once = [frame for frame in client.take() if frame.kind == frames.WINDOW_UPDATE and frame.stream == number]
        assert len(once) == 1
        (stream,) = method.streams
        while stream.take() is not None:
            pass
        assert [frame for frame in client.take() if frame.kind == frames.WINDOW_UPDATE and frame.stream == number]
        client.data(number, framed(b"x" * (7 << 20)), end=False)  # larger than the window: let in to its end
        assert len(stream.take()) == 7 << 20

    played(play)


def test_what_comes_for_a_stream_that_is_over_still_makes_room() -> None:
    """Or a connection whose calls were refused would stand still."""

    def play() -> None:
        client = Client(limit=1000)
        number = client.begin()
        client.data(number, framed(b"x" * 1001)[:500], end=False)
        assert client.outcome(number)[0]["grpc-status"] == "8"
        for _ in range(ROOM // frames.MAX_FRAME // 2 + 1):
            client.data(number, b"x" * frames.MAX_FRAME, end=False)
        assert sum(window(frame) for frame in client.take() if frame.kind == frames.WINDOW_UPDATE) > ROOM // 2
        assert not client.wire.closed

    played(play)


def test_more_than_the_window_resets_the_stream() -> None:
    def play() -> None:
        client = Client({METHOD: EchoMethod(streaming=True)})
        number = client.begin()
        message = framed(b"x" * HELD)
        for _ in range(2 * WINDOW // HELD):
            client.data(number, message, end=False)
        resets = [frame for frame in client.take() if frame.kind == frames.RST_STREAM]
        assert [window(frame) for frame in resets] == [Error.FLOW_CONTROL_ERROR]

    played(play)


BAD_BYTES = [
    # a name, what is sent, the error of the GOAWAY
    ("a frame that is too long", frames.frame_head(frames.DATA, 0, 1, 16385) + b"x" * 16385, Error.FRAME_SIZE_ERROR),
    ("a header that is too long", frames.frame_head(frames.PING, 0, 0, 1 << 20), Error.FRAME_SIZE_ERROR),
    ("headers of stream 0", frames.headers_frame(0, b"\x83", end=True), Error.PROTOCOL_ERROR),
    ("headers of a server's stream", frames.headers_frame(2, b"\x83", end=True), Error.PROTOCOL_ERROR),
    ("a reference to nothing", frames.headers_frame(1, b"\xff\x80\x80\x01", end=True), Error.COMPRESSION_ERROR),
    ("a string that is cut off", frames.headers_frame(1, b"\x40\x0aa", end=True), Error.COMPRESSION_ERROR),
    ("data of no stream", frames.frame(frames.DATA, 0, 1, b"x"), Error.PROTOCOL_ERROR),
    ("data of stream 0", frames.frame(frames.DATA, 0, 0, b"x"), Error.PROTOCOL_ERROR),
    ("a reset of no stream", frames.reset(1, Error.CANCEL), Error.PROTOCOL_ERROR),
    ("a short reset", frames.frame(frames.RST_STREAM, 0, 1, b"x"), Error.FRAME_SIZE_ERROR),
    ("settings of a stream", frames.frame(frames.SETTINGS, 0, 1), Error.PROTOCOL_ERROR),
    ("odd settings", frames.frame(frames.SETTINGS, 0, 0, b"12345"), Error.FRAME_SIZE_ERROR),
    ("a window too large", frames.settings_frame({frames.INITIAL_WINDOW: 1 << 31}), Error.FLOW_CONTROL_ERROR),
    ("a frame size too small", frames.settings_frame({frames.MAX_FRAME_SIZE: 1}), Error.PROTOCOL_ERROR),
    ("a short ping", frames.frame(frames.PING, 0, 0, b"1234"), Error.FRAME_SIZE_ERROR),
    ("a ping of a stream", frames.frame(frames.PING, 0, 1, b"12345678"), Error.PROTOCOL_ERROR),
    ("no more room", frames.window_update(0, 0), Error.PROTOCOL_ERROR),
    ("too much room", frames.window_update(0, (1 << 31) - 1), Error.FLOW_CONTROL_ERROR),
    ("room for no stream", frames.window_update(1, 1), Error.PROTOCOL_ERROR),
    ("a push", frames.frame(frames.PUSH_PROMISE, 0, 1, b"1234"), Error.PROTOCOL_ERROR),
    ("continuation of nothing", frames.frame(frames.CONTINUATION, 4, 1, b""), Error.PROTOCOL_ERROR),
    (
        "a frame within headers",
        frames.frame(frames.HEADERS, 0, 1, b"\x83") + frames.frame(frames.PING, 0, 0, b"12345678"),
        Error.PROTOCOL_ERROR,
    ),
    (
        "data within headers",
        frames.frame(frames.HEADERS, 0, 1, b"\x83") + frames.frame(frames.DATA, 0, 1, b"x"),
        Error.PROTOCOL_ERROR,
    ),
    (
        "headers without end",
        frames.frame(frames.HEADERS, 0, 1, b"\x83") + frames.frame(frames.CONTINUATION, 0, 1, b"\x83" * 9000) * 4,
        Error.ENHANCE_YOUR_CALM,
    ),
    (
        "empty continuations",
        frames.frame(frames.HEADERS, 0, 1, b"\x83") + frames.frame(frames.CONTINUATION, 0, 1, b""),
        Error.ENHANCE_YOUR_CALM,
    ),
    ("more padding than frame", frames.frame(frames.HEADERS, 12, 1, b"\x09\x83"), Error.PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("data", "error"), [row[1:] for row in BAD_BYTES], ids=[row[0] for row in BAD_BYTES])
def test_a_broken_protocol_ends_the_connection_with_its_reason(data: bytes, error: Error) -> None:
    def play() -> None:
        client = Client()
        client.send(data)
        assert client.last() == (frames.GOAWAY, error)
        assert client.wire.closed

    played(play)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/1", b"\x16\x03\x01\x02\x00"])
def test_what_is_not_http2_is_told_so(data: bytes) -> None:
    def play() -> None:
        client = Client(greet=False)
        client.send(data)
        assert client.last() == (frames.GOAWAY, Error.PROTOCOL_ERROR)
        assert client.wire.closed

    played(play)


@pytest.mark.parametrize(
    ("changed", "status"),
    [({"content_type": "text/plain"}, "415"), ({"content_type": None}, "415"), ({"__method": "GET"}, "405")],
)
def test_a_request_that_is_no_call_gets_an_http_status(changed: dict[str, str | None], status: str) -> None:
    def play() -> None:
        client = Client()
        assert client.outcome(client.begin(**changed))[0] == {":status": status}
        assert client.outcome(client.call(b"x"))[0]["grpc-status"] == "0"

    played(play)


@pytest.mark.parametrize(
    "changed", [{"__path": None}, {"__method": None}, {"Upper": "x"}, {"connection": "close"}, {"__other": "x"}]
)
def test_headers_that_http2_forbids_reset_their_stream_alone(changed: dict[str, str | None]) -> None:
    def play() -> None:
        client = Client()
        number = client.begin(**changed)
        assert client.last() == (frames.RST_STREAM, Error.PROTOCOL_ERROR)
        client.data(number, b"x")
        assert client.outcome(client.call(b"x"))[0]["grpc-status"] == "0"

    played(play)


def test_who_serves_a_call_learns_that_its_client_has_gone() -> None:
    def play() -> None:
        method = EchoMethod(later=True)
        client = Client({METHOD: method})
        reset, lost = client.call(b"a"), client.call(b"b")
        client.send(frames.reset(reset, Error.CANCEL))
        assert (method.gone_streams, list(client.connection.streams)) == (1, [lost])
        method.streams[0].answer(b"too late")
        assert not client.take()
        client.connection.connection_lost(None)
        assert method.gone_streams == 2
        assert client.shared.empty.is_set()

    played(play)


def test_a_connection_that_ends_serves_what_it_has_and_refuses_the_rest() -> None:
    def play() -> None:
        method = EchoMethod(later=True)
        client = Client({METHOD: method})
        number = client.call(b"a")
        client.connection.announce()
        also = client.call(b"b")  # was on its way
        client.connection.leave()
        assert [frame.kind for frame in client.take()] == [frames.GOAWAY, frames.GOAWAY]
        client.call(b"c")
        assert client.last() == (frames.RST_STREAM, Error.REFUSED_STREAM)
        for stream in method.streams:
            assert not client.wire.closed
            stream.answer(b"done")
        assert {frame.stream for frame in client.take()} == {number, also}
        assert client.wire.closed

    played(play)


def test_a_client_that_does_not_read_is_not_read_from_either() -> None:
    def play() -> None:
        client = Client()
        client.connection.pause_writing()
        assert client.wire.paused
        number = client.call(b"x" * 1000)
        client.take()
        client.connection.resume_writing()
        assert client.outcome(number)[1] == framed(b"x" * 1000)
        assert not client.wire.paused

    played(play)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 11),
            st.integers(0, 255),
            st.sampled_from((0, 1, 2, 3, 5)),
            st.one_of(st.binary(max_size=40), st.just(b"\x83\x86\x44\x01/"), st.just(framed(b"hello"))),
        ),
        max_size=12,
    )
)
def test_no_bytes_are_an_unexpected_failure(sent: list[tuple[int, int, int, bytes]]) -> None:
    async def play() -> None:
        client = Client()
        number = client.begin()
        for kind, flags, stream, payload in sent:
            if not client.wire.closed:
                client.send(frames.frame(kind, flags, stream or number, payload))
        faults = [frame for frame in client.take() if frame.kind == frames.GOAWAY]
        assert all(frame.payload[7] != Error.INTERNAL_ERROR for frame in faults)

    logging.getLogger("mlserve.rpc.connection").setLevel(logging.CRITICAL)
    asyncio.run(play())
