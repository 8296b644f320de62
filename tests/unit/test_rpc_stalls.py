"""Clients that stop in the middle: what they began is not kept for ever, and who merely waits is left alone."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from support.http2 import METHOD, Client, EchoMethod, framed, played

from mlserve.rpc import frames
from mlserve.rpc.server import RpcServer
from mlserve.rpc.shared import Shared
from mlserve.rpc.stalls import sweep
from mlserve.rpc.stream import HELD


def passed(client: Client, seconds: int = 40, each: Any = lambda: None) -> None:
    """So many seconds, with a look in each; the patience is 30."""
    start = client.connection.since
    for second in range(seconds):
        each()
        sweep(client.shared, start + second)


def test_half_a_frame_and_half_of_headers_end_their_connection() -> None:
    def play() -> None:
        for begun in (frames.settings_frame({4: 1})[:-1], frames.frame(frames.HEADERS, 0, 1, b"\x83")):
            client = Client()
            client.send(begun)
            passed(client, 30)
            assert not client.wire.closed
            passed(client)
            assert client.wire.aborted

    played(play)


def test_a_client_that_reads_nothing_is_cut_and_one_that_reads_slowly_is_not() -> None:
    def play() -> None:
        client = Client()
        client.connection.pause_writing()
        client.wire.written += b"x" * 1000
        passed(client, each=lambda: client.wire.written.pop())
        assert not client.wire.closed
        passed(client, 70)
        assert client.wire.aborted

    played(play)


def test_a_refused_client_that_does_not_read_why_is_cut() -> None:
    """Closing alone waits until everything is read, and would keep the calls of the connection."""

    def play() -> None:
        client = Client()
        client.send(frames.window_update(0, 0))
        assert client.wire.closed
        passed(client)
        assert client.wire.aborted

    played(play)


def test_half_a_request_ends_its_call_and_no_other() -> None:
    def play() -> None:
        client = Client()
        numbers = [client.begin(), client.begin()]
        client.data(numbers[1], framed(b"x" * 100)[:50], end=False)
        passed(client, 30)
        assert not client.take()
        passed(client)
        found = client.take()
        assert [frame.stream for frame in found if frame.kind == frames.HEADERS] == numbers
        assert not client.connection.streams
        assert client.outcome(client.call(b"x"))[0]["grpc-status"] == "0"

    played(play)


def test_answers_that_their_client_makes_no_room_for_are_let_go() -> None:
    """Ten thousand on a connection, of 64 MiB each, would be kept for as long as it likes."""

    def play() -> None:
        client = Client()
        client.send(frames.settings_frame({frames.INITIAL_WINDOW: 0}))
        never, slowly = client.call(b"x" * 100), client.call(b"x" * 100)
        client.take()
        passed(client, 50, each=lambda: client.send(frames.window_update(slowly, 1)))
        found = client.take()
        assert [frame.stream for frame in found if frame.kind == frames.RST_STREAM] == [never]
        assert list(client.connection.streams) == [slowly]

    played(play)


def test_who_merely_waits_is_left_alone() -> None:
    def play() -> None:
        slow, streaming = EchoMethod(later=True), EchoMethod(streaming=True)
        client = Client({METHOD: slow, "/s": streaming}, limit=8 << 20)
        client.call(b"x")  # computed for a long time
        client.begin(__path="/s")  # has nothing to say
        full = client.begin(__path="/s")  # waits until its messages are taken
        client.data(full, framed(b"x" * HELD) + framed(b"y" * 100)[:50], end=False)
        passed(client, 100)
        assert (len(client.connection.streams), client.wire.closed) == (3, False)

    played(play)


def test_the_timer_of_a_connections_age_ends_with_the_connection() -> None:
    """Or each connection that ever was would be kept for its whole age."""

    async def play() -> None:
        shared = Shared({}, max_receive=1, max_headers=1024, patience=30.0)
        RpcServer(shared, age=3600.0)
        client = Client(shared=shared)
        timer = client.connection.timer
        assert timer is not None
        assert not timer.cancelled()
        client.connection.connection_lost(None)
        assert timer.cancelled()

    asyncio.run(play())


def test_connections_ask_for_hosts_that_are_gone_without_a_word() -> None:
    async def play() -> None:
        shared = Shared({}, max_receive=1, max_headers=1024, patience=30.0)
        server = RpcServer(shared)
        port = await server.open("127.0.0.1", 0, None)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readexactly(9)
        (connection,) = shared.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        server.refuse()
        server.cut()
        writer.close()
        await server.drain(30)

    asyncio.run(play())
