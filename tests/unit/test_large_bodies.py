"""Bodies that are read past the parser: whole, in order, and bounded by what the client has really sent."""

from __future__ import annotations

import asyncio

import httptools
import pytest
from support.lane_client import OK, Client, post, with_client

from mlserve.rest.lane import Limits
from mlserve.rest.large_body import AHEAD, LARGE, LargeBody, LikeBefore
from mlserve.wire.lending import LendingArena

LIMITS = Limits(max_request_size=8 << 20, max_header_size=4096, header_timeout=30.0, keep_alive_timeout=75.0)
BODY = bytes(range(256)) * (5 * LARGE // 256)


class LargeClient(Client):
    """Gives bytes to whatever protocol has the transport, as an event loop does."""

    def __init__(self) -> None:
        super().__init__()
        self.shared.limits = LIMITS
        self.protocol = self.lane
        self.transport.set_protocol = self._set  # type: ignore[attr-defined]

    def _set(self, protocol: object) -> None:
        self.protocol = protocol  # type: ignore[assignment]
        if isinstance(protocol, asyncio.BufferedProtocol):  # uvloop's keeps them until there are others
            self.kept = (protocol.get_buffer, protocol.buffer_updated)

    def feed(self, data: bytes, piece: int) -> None:
        while data:
            if isinstance(self.protocol, asyncio.BufferedProtocol):
                room = self.protocol.get_buffer(piece)
                count = min(len(room), piece, len(data))
                assert count, "a body that wants no more bytes"
                room[:count] = data[:count]
                self.protocol.buffer_updated(count)
            else:
                count = min(piece, len(data))
                self.protocol.data_received(data[:count])
            data = data[count:]
        self.clock.turn()

    def bodies(self) -> list[bytes]:
        seen = []
        while self.slot.batches:
            seen.append(bytes(self.slot.batches[0].jobs[0].request.parts[0].data))
            self.answer(OK)
        return seen


def large(test, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.lane_client.Client", LargeClient)
    with_client(test)


@pytest.mark.parametrize("piece", [97_003, 65_536, 4_000, 10 << 20])
def test_a_large_body_arrives_whole_whatever_its_pieces(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: LargeClient) -> None:
        client.feed(post(b"before") + post(BODY), piece)
        client.feed(post(b"behind") + post(BODY[::-1]) + post(b"last"), piece)
        assert client.bodies() == [b"before", BODY, b"behind", BODY[::-1], b"last"]
        assert client.statuses() == [200] * 5
        assert client.protocol is client.lane

    large(check, monkeypatch)


def test_the_lane_is_left_only_for_a_large_body(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: LargeClient) -> None:
        client.feed(post(BODY[: LARGE - 1])[:-1], 60_000)
        assert client.protocol is client.lane
        client.feed(b"x", 1)
        client.feed(post(BODY)[:-1], 60_000)
        assert isinstance(client.protocol, LargeBody)

    large(check, monkeypatch)


def test_a_length_without_a_body_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: LargeClient) -> None:
        head = b"POST /predictions/m HTTP/1.1\r\ncontent-length: 8000000\r\n\r\n"
        client.feed(head + b"x" * 10, 1 << 20)
        assert isinstance(client.protocol, LargeBody)
        assert len(client.protocol.get_buffer(-1)) <= LARGE + AHEAD * 10

    large(check, monkeypatch)


def test_a_client_that_stalls_in_a_large_body_is_told_and_what_it_still_sends_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check(client: LargeClient) -> None:
        client.feed(post(BODY)[:-5], 60_000)
        client.lane.check_time(client.lane._since + 31)
        assert client.statuses() == [408]
        client.feed(b"x" * 5 + post(b"more"), 60_000)
        assert client.bodies() == []
        assert client.statuses() == [408]

    large(check, monkeypatch)


def test_a_large_body_that_makes_progress_is_given_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]

    def check(client: LargeClient) -> None:
        client.shared.now = lambda: now[0]
        message = post(BODY)
        for start in range(0, len(message), 200_000):
            client.feed(message[start : start + 200_000], 200_000)
            now[0] += 25
            client.lane.check_time(now[0])
        assert client.bodies() == [BODY]
        assert client.statuses() == [200]

    large(check, monkeypatch)


def test_the_end_of_a_connection_ends_what_its_large_body_came_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: LargeClient) -> None:
        client.feed(post(b"before") + post(BODY)[:-5], 60_000)
        client.protocol.connection_lost(None)
        assert client.queue.stats.cancelled == 1
        assert client.lane not in client.shared.connections

    large(check, monkeypatch)


def test_bodies_are_read_to_where_workers_find_them_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: LargeClient) -> None:
        arena = client.shared.bodies = LendingArena.create(4 * len(BODY) + 4 * LARGE)
        if arena is None:
            pytest.skip("memfd is Linux only")
        for _ in range(4):
            client.feed(post(BODY), 60_000)
        places = []
        while client.slot.batches:
            (data,) = (part.data for part in client.slot.batches[0].jobs[0].request.parts)
            assert bytes(data) == BODY
            places.append(arena.offset_of(data))
            del data
            client.answer(OK)
        assert [place is None for place in places] == [False] * 3 + [True], (
            "the last quarter is not for those that wait"
        )
        client.feed(post(BODY[::-1]), 60_000)
        assert arena.offset_of(client.slot.batches[0].jobs[0].request.parts[0].data) is not None
        assert client.bodies() == [BODY[::-1]]
        arena.close()

    large(check, monkeypatch)


def test_a_large_body_behind_a_head_that_is_known_needs_no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: LargeClient) -> None:
        client.feed(post(BODY), 60_000)
        monkeypatch.setattr(client.lane, "_parser", None)
        client.feed(post(BODY[::-1]), 60_000)
        client.feed(post(BODY[7:]), 60_000)
        client.feed(post(BODY), len(BODY) * 2)
        seen = []
        while client.slot.batches:
            request = client.slot.batches[0].jobs[0].request
            seen.append((bytes(request.parts[0].data), int(dict(request.headers)[b"content-length"])))
            client.answer(OK)
        assert seen == [(body, len(body)) for body in (BODY, BODY[::-1], BODY[7:], BODY)]

    large(check, monkeypatch)


def test_who_waits_to_be_told_to_send_a_large_body_is_told_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: LargeClient) -> None:
        head, body = b"POST /predictions/m HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n", BODY
        for number in range(3):
            client.feed(head % len(body) + body[:1000], 1 << 20)
            assert client.transport.written.count(b"100 Continue") == number + 1
            client.feed(body[1000:], 1 << 20)
            assert client.bodies() == [BODY]

    large(check, monkeypatch)


@pytest.mark.parametrize("piece", [70_000, 3_000, 10 << 20])
def test_what_comes_behind_large_requests_of_one_length_is_read_whatever_it_is(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(client: LargeClient) -> None:
        arena = client.shared.bodies = LendingArena.create(64 * len(BODY))
        if arena is None:
            pytest.skip("memfd is Linux only")
        for body in (BODY, BODY[::-1], BODY, BODY[::-1]):
            client.feed(post(body), piece)
            assert client.bodies() == [body]
        assert isinstance(client.protocol, LikeBefore)
        monkeypatch.setattr(client.lane, "_parser", None)
        client.feed(post(BODY), piece)
        (data,) = (part.data for part in client.slot.batches[0].jobs[0].request.parts)
        assert arena.offset_of(data) is not None
        assert arena.offset_of(data) % 64 == 0
        del data
        assert client.bodies() == [BODY]
        monkeypatch.undo()
        client.lane._parser = httptools.HttpRequestParser(client.lane)
        for body in (b"small", BODY[7:], b"", BODY + b"x", BODY, BODY, BODY, b"y" * (LARGE - 1)):
            client.feed(post(body), piece)
            assert client.bodies() == [body]
        client.feed(post(BODY) * 3 + post(b"one") + post(BODY) * 2 + b"no HTTP\r\n\r\n", piece)
        assert client.bodies() == [BODY] * 3 + [b"one"] + [BODY] * 2
        assert client.statuses() == [200] * 19 + [400]
        arena.close()

    large(check, monkeypatch)


def test_no_memory_is_held_for_a_connection_on_which_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: LargeClient) -> None:
        arena = client.shared.bodies = LendingArena.create(8 * len(BODY))
        if arena is None:
            pytest.skip("memfd is Linux only")
        for _ in range(4):
            client.feed(post(BODY), 60_000)
            assert client.bodies() == [BODY]
        assert isinstance(client.protocol, LikeBefore)
        assert arena.lend(arena.size) is not None
        client.protocol.connection_lost(None)
        assert client.lane not in client.shared.connections
        arena.close()

    large(check, monkeypatch)


@pytest.mark.parametrize("room", [0, 8])
def test_an_idle_connection_holds_no_body_that_has_been_answered(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: LargeClient) -> None:
        arena = client.shared.bodies = LendingArena.create(room * len(BODY)) if room else None
        if room and arena is None:
            pytest.skip("memfd is Linux only")
        client.feed(post(BODY), 60_000)
        assert client.bodies() == [BODY]
        assert client.service.intake.held == 0
        if arena is not None:
            assert arena.lend(arena.size) is not None
            arena.close()

    large(check, monkeypatch)


def test_a_connection_that_ends_in_a_large_body_lets_go_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: LargeClient) -> None:
        client.feed(post(BODY)[:-1], 60_000)
        assert client.service.intake.held > 0
        client.protocol.connection_lost(None)
        assert client.service.intake.held == 0
        assert client.lane not in client.shared.connections

    large(check, monkeypatch)
