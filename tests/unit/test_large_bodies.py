"""Bodies that are read past the parser: whole, in order, and bounded by what the client has really sent."""

from __future__ import annotations

import pytest
from support.lane_client import OK, Client, post, with_client

from mlserve.rest import fast
from mlserve.rest.lane import Limits
from mlserve.rest.large_body import AHEAD, LARGE, LargeBody

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

    def feed(self, data: bytes, piece: int) -> None:
        while data:
            if isinstance(self.protocol, LargeBody):
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
    monkeypatch.setattr(fast, "time", type("Time", (), {"monotonic": staticmethod(lambda: now[0])}))

    def check(client: LargeClient) -> None:
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
