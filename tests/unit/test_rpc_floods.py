"""Clients that make gRPC's HTTP/2 work, or keep things, for much less than that costs them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from support.http2 import METHOD, Client, EchoMethod, framed, played

from mlserve.rpc import control, frames
from mlserve.rpc.frames import Error
from mlserve.rpc.stream import HELD, WINDOW, Stream


def pumped(monkeypatch: Any) -> list[int]:
    """The streams that are looked at, as they are."""
    seen: list[int] = []
    pump = Stream.pump

    def noted(stream: Stream) -> None:
        seen.append(stream.id)
        pump(stream)

    monkeypatch.setattr(Stream, "pump", noted)
    return seen


def test_room_on_the_connection_costs_nothing_where_no_stream_has_any(monkeypatch: Any) -> None:
    def play() -> None:
        client = Client()
        client.send(frames.settings_frame({frames.INITIAL_WINDOW: 0}))
        numbers = [client.call(b"x") for _ in range(50)]
        seen = pumped(monkeypatch)
        client.send(frames.window_update(0, 1) * 10 + frames.settings_frame({}) * 10)
        assert not seen, "every frame of 13 bytes went through all streams"
        for number in numbers:
            client.send(frames.window_update(number, 100))
            assert client.outcome(number)[1] == framed(b"x")
        assert not client.connection.streams

    played(play)


def test_streams_that_wait_for_the_connection_take_turns() -> None:
    def play() -> None:
        client = Client()
        client.send(frames.settings_frame({frames.INITIAL_WINDOW: 1 << 20}))
        first, second = client.call(b"a" * 300_000), client.call(b"b" * 300_000)
        client.take()
        client.send(frames.window_update(0, 1000) + frames.window_update(0, 1000))
        found = [frame.stream for frame in client.take() if frame.kind == frames.DATA]
        assert found == [first, second]
        client.send(frames.window_update(0, 1 << 20))
        assert sorted({frame.stream for frame in client.take()}) == [first, second]
        assert not client.connection.streams

    played(play)


def test_windows_that_are_changed_all_the_time_end_the_connection() -> None:
    def play() -> None:
        client = Client()
        for size in range(control.RESIZES // 2):
            client.send(frames.settings_frame({frames.INITIAL_WINDOW: size}))
        assert not client.wire.closed
        for size in range(control.RESIZES):
            client.send(frames.settings_frame({frames.INITIAL_WINDOW: size}))
        assert client.last() == (frames.GOAWAY, Error.ENHANCE_YOUR_CALM)

    played(play)


def test_one_frame_with_many_sizes_changes_the_windows_once() -> None:
    def play() -> None:
        client = Client()
        number = client.call(b"m" * 100_000)
        sizes = [*range(1000), 65535]
        client.send(frames.frame(frames.SETTINGS, 0, 0, b"".join(struct.pack(">HI", 4, size) for size in sizes)))
        assert not client.wire.closed
        assert client.connection.streams[number].window == 0
        client.send(frames.window_update(number, frames.MAX_WINDOW))
        client.take()
        client.send(frames.settings_frame({frames.INITIAL_WINDOW: 65536}))
        assert client.last() == (frames.GOAWAY, Error.FLOW_CONTROL_ERROR)

    played(play)


def test_empty_messages_that_nobody_takes_do_not_pile_up() -> None:
    def play() -> None:
        method = EchoMethod(streaming=True)
        client = Client({METHOD: method})
        number = client.begin()
        for _ in range(2 * WINDOW // 16_000):
            client.data(number, framed(b"") * 3200, end=False)
        (stream,) = method.streams
        assert client.last() == (frames.RST_STREAM, Error.FLOW_CONTROL_ERROR), "its window was given back for ever"
        assert stream.messages is None

    played(play)


def test_messages_that_are_taken_let_the_client_go_on() -> None:
    def play() -> None:
        method = EchoMethod(streaming=True)
        client = Client({METHOD: method})
        number = client.begin()
        for _ in range(2 * WINDOW // 16_000):
            client.data(number, framed(b"x" * 1595) * 10, end=False)
            while method.streams[0].take() is not None:
                pass
        assert not method.streams[0].over
        assert method.streams[0]._held == 0 < HELD

    played(play)


@pytest.mark.parametrize("piece", [100, 7000])
def test_too_many_headers_end_their_call_and_no_other(piece: int) -> None:
    """A proxy sends the calls of all its clients over one connection."""

    def play() -> None:
        method = EchoMethod(later=True)
        client = Client({METHOD: method})
        client.call(b"other")
        number = client.begin(**{f"x{at}": "~" * piece for at in range(0, 14_000, piece)})
        fields = client.outcome(number)[0]
        assert fields["grpc-status"] == "8"
        assert "max_header_size" in fields["grpc-message"]
        method.streams[0].answer(b"done")
        assert not client.wire.closed
        client.begin(**{f"x{at}": "~" * 7000 for at in range(6)})
        assert client.wire.closed, "there is an end to what is decoded"

    played(play)
