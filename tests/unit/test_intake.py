"""What all clients together may make the server hold: counted while it is there, refused with the setting's name."""

from __future__ import annotations

import gc
import gzip
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.http2 import METHOD, EchoMethod, framed, played
from support.http2 import Client as RpcClient
from support.lane_client import OK, Client, Transport, post, with_client

from mlserve.core.intake import SPELL, Held, Intake, IntakeFull
from mlserve.engine.local.memory import memory_limit
from mlserve.errors import SettingError
from mlserve.protocols.admission import allow_connections
from mlserve.rest.fast import FastLane
from mlserve.rpc.codes import Code
from mlserve.rpc.shared import Shared
from mlserve.settings import Settings
from mlserve.startup import make_intake

KIB = 1 << 10


def test_memory_that_a_view_still_needs_is_not_given_to_another() -> None:
    intake = Intake(max_bytes=100)
    body = memoryview(Held.of(intake, b"x" * 60))
    part = body[10:20]
    del body
    with pytest.raises(IntakeFull, match="max_request_memory"):
        Held(intake, 41)
    assert (intake.held, intake.refused_bodies) == (60, 1)
    del part
    assert len(Held(intake, 100)) == 100
    assert intake.held == 0


def test_a_body_that_was_refused_while_it_grew_does_not_count_for_ever() -> None:
    intake = Intake(max_bytes=100)
    body = Held.of(intake, b"x" * 60)
    with pytest.raises(IntakeFull):
        body.more(b"y" * 41)
    assert intake.held == 60
    del body
    assert intake.held == 0


def test_thousands_of_refusals_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    intake = Intake(max_connections=2, now=lambda: now[0])
    intake.listens("inference", lambda: 2)
    with caplog.at_level(logging.WARNING):
        for _ in range(5000):
            now[0] += SPELL / 100
            assert not intake.admits("inference")
        assert len(caplog.records) == 1
        now[0] += SPELL + 1
        assert not intake.admits("inference")
    assert len(caplog.records) == 2
    assert "server.max_connections" in caplog.text
    assert intake.refused_connections == {"inference": 5001}


class Many(Client):
    """Several connections of one listener."""

    def __init__(self) -> None:
        super().__init__()
        self.service.intake = Intake(max_bytes=300 * KIB)

    def connect(self) -> Transport:
        lane, transport = FastLane(self.shared), Transport()
        lane.connection_made(transport)  # type: ignore[arg-type]
        transport.protocol = lane  # type: ignore[attr-defined]
        transport.lane = lane  # type: ignore[attr-defined]
        transport.set_protocol = lambda protocol: setattr(transport, "protocol", protocol)  # type: ignore[attr-defined]
        return transport

    def feed(self, transport: Any, data: bytes, piece: int = 50 * KIB) -> None:
        while data:
            protocol, size = transport.protocol, min(piece, len(data))
            if hasattr(protocol, "get_buffer"):
                room = protocol.get_buffer(size)
                size = min(len(room), size)
                room[:size] = data[:size]
                protocol.buffer_updated(size)
            else:
                protocol.data_received(data[:size])
            data = data[size:]
        self.clock.turn()


def with_many(test: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.lane_client.Client", Many)
    with_client(test)


CHUNKED = b"POST /predictions/m HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2bf20\r\n" + b"y" * 180_000
BEHIND = (
    post() + b"POST /models HTTP/1.1\r\ncontent-length: 180000\r\n\r\n" + b"y" * 180_000
)  # aiohttp's, behind one of ours


@pytest.mark.parametrize("data", [post(b"y" * 190_000)[:-1], CHUNKED, BEHIND], ids=("length", "chunked", "kept"))
def test_slow_bodies_of_many_connections_cannot_fill_the_memory(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: Many) -> None:
        transports = [client.connect() for _ in range(20)]
        for transport in transports:
            client.feed(transport, data)
            assert client.service.intake.held <= 300 * KIB
        while client.slot.batches:
            client.answer(OK)
            client.clock.turn()
        refused = [transport for transport in transports if b" 503 " in transport.written]
        assert len(refused) >= 18
        assert b"max_request_memory" in refused[0].written
        assert b"\r\nretry-after: 1\r\n" in refused[0].written.lower()
        for transport in transports:
            transport.lane.connection_lost(None)  # type: ignore[attr-defined]
        del transport, transports, refused
        gc.collect()  # these transports and their protocols refer to each other, an event loop's do not
        assert client.service.intake.held == 0

    with_many(check, monkeypatch)


def test_a_large_request_is_not_refused_for_one_that_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: Many) -> None:
        for number in range(5):
            transport = client.connect()
            client.feed(transport, post(b"y" * 150_000))
            assert client.service.intake.held == 150_000, number
            client.answer(OK)
            assert b" 200 " in transport.written

    with_many(check, monkeypatch)


def test_small_requests_are_not_refused_when_large_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: Many) -> None:
        client.service.intake.take(300 * KIB)
        client.send(post(b"y" * 1000))
        client.send(post(b"z" * 60_000))
        client.answer(OK)
        client.answer(OK)
        assert client.statuses() == [200, 200]

    with_many(check, monkeypatch)


def rpc_client(intake: Intake, method: EchoMethod) -> RpcClient:
    shared = Shared({METHOD: method}, max_receive=1 << 20, max_headers=8192, patience=30.0, intake=intake)
    return RpcClient(shared=shared)


def test_slow_calls_cannot_fill_the_memory() -> None:
    def play() -> None:
        intake = Intake(max_bytes=300 * KIB)
        client = rpc_client(intake, EchoMethod(later=True))
        begun = [client.begin() for _ in range(5)]
        for number in begun:
            client.data(number, framed(b"y" * 130_000)[:-1], end=False)
        fields, _ = client.outcome(begun[2])
        assert fields["grpc-status"] == str(int(Code.RESOURCE_EXHAUSTED))
        assert "max_request_memory" in fields["grpc-message"]
        assert 250_000 < intake.held <= 300 * KIB
        client.connection.connection_lost(None)
        assert intake.held == 0

    played(play)


def test_calls_that_unpack_to_more_than_was_sent_cannot_fill_the_memory() -> None:
    def play() -> None:
        intake = Intake(max_bytes=300 * KIB)
        client = rpc_client(intake, EchoMethod(later=True))
        packed = framed(gzip.compress(b"y" * 200_000), packed=True)
        for _ in range(2):
            number = client.begin(grpc_encoding="gzip")
            client.data(number, packed)
        fields, _ = client.outcome(number)
        assert fields["grpc-status"] == str(int(Code.RESOURCE_EXHAUSTED))
        assert intake.held == 200_000

    played(play)


def test_messages_that_nobody_takes_cannot_fill_the_memory() -> None:
    def play() -> None:
        intake = Intake(max_bytes=300 * KIB)
        method = EchoMethod(streaming=True)
        client = rpc_client(intake, method)
        begun = [client.begin() for _ in range(4)]
        for number in begun:
            for _ in range(100):
                client.data(number, framed(b"y" * 1000), end=False)
        fields, _ = client.outcome(begun[-1])
        assert fields["grpc-status"] == str(int(Code.RESOURCE_EXHAUSTED))
        before = intake.held
        method.streams[0].take()
        assert intake.held == before - 1064
        client.connection.connection_lost(None)
        assert intake.held == 0

    played(play)


def test_memory_that_no_large_request_fits_in_is_not_accepted() -> None:
    def settings(**changed: int) -> Settings:
        return replace(Settings(), server=replace(Settings().server, max_connections=100, **changed))

    with pytest.raises(SettingError, match=r"max_request_memory is 1000: .* at least twice server.max_request_size"):
        make_intake(settings(max_request_memory=1000))
    assert make_intake(settings(max_request_memory=1 << 30)).max_bytes == 1 << 30
    most = memory_limit()
    assert make_intake(settings()).max_bytes == max(most // 4, 128 << 20)
    assert make_intake(settings(max_request_size=most)).max_bytes == 2 * most


def test_limit_of_the_container_is_not_the_machine_s(tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text("0::/\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit(tmp_path, membership) > 100 << 20
    (tmp_path / "memory.max").write_text(f"{100 << 20}\n")
    assert memory_limit(tmp_path, membership) == 100 << 20


def test_more_connections_than_files_can_be_open_are_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1024, 4096)]
    monkeypatch.setattr("resource.getrlimit", lambda which: limits[-1])
    monkeypatch.setattr("resource.setrlimit", lambda which, pair: limits.append(pair))
    assert allow_connections(1000) == 1000
    assert limits[-1] == (1512, 4096)
    assert allow_connections(20_000) == 4096 - 512
    assert limits[-1] == (4096, 4096)
