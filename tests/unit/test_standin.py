"""Connections that wait for aiohttp: nothing of what they have sent is lost, twice there or read without end."""

from __future__ import annotations

from typing import Any

from support.lane_client import Transport

from mlserve.rest.standin import SlowDoor


class Moving(Transport):
    """A transport whose protocol can be changed."""

    protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Server:
    """Stands for aiohttp's: itself the protocol, which notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.open_connections = 0

    def __call__(self) -> Server:
        return self

    def connection_made(self, transport: Any) -> None:
        self.open_connections += 1

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def pause_writing(self) -> None:
        self.told.append("stuffed")


def made() -> tuple[SlowDoor, list[int]]:
    asked: list[int] = []
    return SlowDoor(lambda: asked.append(1)), asked


def connect(door: SlowDoor) -> tuple[Any, Moving]:
    transport, protocol = Moving(), door()
    protocol.connection_made(transport)  # type: ignore[arg-type]
    return protocol, transport


def test_what_was_sent_while_waiting_arrives_once_and_in_order() -> None:
    door, asked = made()
    waiting, transport = connect(door)
    assert asked
    assert transport.reading  # until there is something to keep
    waiting.data_received(b"GET / HT")
    assert not transport.reading
    waiting.data_received(b"TP/1.1")  # what the loop had read before it was told
    waiting.pause_writing()
    server: Any = Server()
    door.open(server)
    assert transport.protocol is server
    assert transport.reading
    assert server.told == ["stuffed", b"GET / HTTP/1.1"]
    assert door.open_connections == 1
    assert door() is server  # nobody waits any more


def test_a_waiting_connection_counts_as_one() -> None:
    door, _ = made()
    connect(door)
    gone, _ = connect(door)
    assert door.open_connections == 2
    gone.connection_lost(None)
    assert door.open_connections == 1
    server: Any = Server()
    door.open(server)
    assert door.open_connections == 1
    assert server.told == []


def test_a_connection_that_was_taken_before_the_server_was_there_goes_on() -> None:
    door, _ = made()
    protocol: Any = door()
    server: Any = Server()
    door.open(server)
    transport = Moving()
    protocol.connection_made(transport)
    assert transport.protocol is server


def test_a_connection_that_is_closing_is_left_alone() -> None:
    door, _ = made()
    waiting, transport = connect(door)
    transport.closed = True
    waiting.data_received(b"x")
    door.open(Server())  # type: ignore[arg-type]
    assert transport.protocol is None
    waiting.connection_lost(None)
    assert not door.waiting


def test_nobody_waits_for_what_will_not_come() -> None:
    door, _ = made()
    _, before = connect(door)
    door.cut()
    assert before.aborted
    _, after = connect(door)
    assert after.aborted


def test_an_import_that_failed_can_be_tried_again() -> None:
    door, _ = made()
    _, before = connect(door)
    door.drop()
    assert before.aborted
    _, after = connect(door)
    assert not after.aborted
