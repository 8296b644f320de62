"""Requests of one connection that begin with the same bytes are not parsed again: nobody must be able to tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.lane_client import OK, Client, post, with_client

from mlserve.core.messages import InferenceResponse
from mlserve.errors import ServeError
from mlserve.rest.request_head import RequestHead

HEAD = b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\nX-A: b\r\n\r\n"


def message(body: bytes, length: bytes | None = None) -> bytes:
    return HEAD.replace(b"%d", length or b"%d" % len(body)) + body


def asked(client: Client) -> list[tuple[bytes, list[tuple[bytes, bytes]]]]:
    """Body and headers of what the worker has, answered."""
    seen = []
    while client.slot.batches:
        [job] = client.slot.batches[0].jobs
        seen.append((bytes(job.request.parts[0].data), list(job.request.headers)))
        client.answer(OK)
    return seen


def headers(length: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"Host", b"h"), (b"Content-Length", length), (b"X-A", b"b")]


@pytest.mark.parametrize("bodies", [(b"same", b"same", b"same"), (b"a", b"bb" * 700, b"", b"\r\n\r\n", b"c" * 11)])
def test_a_repeated_head_does_not_carry_the_body_of_another_request(bodies: tuple[bytes, ...]) -> None:
    def check(client: Client) -> None:
        for body in bodies:
            client.send(message(body))
            assert [seen for seen, _ in asked(client)] == [body]
        assert client.statuses() == [200] * len(bodies)

    with_client(check)


def test_a_header_that_changes_is_not_taken_from_the_request_before() -> None:
    def check(client: Client) -> None:
        client.send(message(b"1"))
        client.send(message(b"2").replace(b"X-A: b", b"X-A: c"))
        client.send(message(b"3"))
        values = [dict(pairs)[b"X-A"] for _, pairs in asked(client)]
        assert values == [b"b", b"c", b"b"]

    with_client(check)


def test_the_length_a_handler_sees_is_that_of_its_own_request() -> None:
    def check(client: Client) -> None:
        client.send(message(b"1"))
        client.send(message(b"22"))
        assert asked(client) == [(b"1", headers(b"1")), (b"22", headers(b"2"))]

    with_client(check)


ODD = {
    "length with letters": message(b"abc", b"0x3"),
    "signed length": message(b"abc", b"+3"),
    "two lengths in one": message(b"abc", b"3, 3"),
    "no length": message(b"", b" "),
    "digits that are none": message(b"abc", "\u0663".encode()),
    "too large": message(b"x" * 200_001),
    "more than is read": message(b"abc", b"99999999999"),
    "closing": message(b"abc").replace(b"X-A: b", b"Connection: close"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_request_behind_a_plain_one_is_answered_as_it_is_alone(name: str) -> None:
    def outcome(client: Client, before: int) -> Any:
        client.transport.written = b""
        client.lane.data_received(ODD[name])
        client.clock.turn()
        return asked(client), client.statuses(), client.transport.closed, client.lane._cold, client.lane._reading

    found = []

    def alone(client: Client) -> None:
        found.append(outcome(client, 0))

    def behind(client: Client) -> None:
        for _ in range(3):
            client.send(message(b"abc"))
            asked(client)
        found.append(outcome(client, 3))

    with_client(alone)
    with_client(behind)
    assert found[0] == found[1]


def test_a_body_in_pieces_and_requests_in_one_piece_are_whole_behind_a_repeated_head() -> None:
    def check(client: Client) -> None:
        client.send(message(b"first"))
        client.send(message(b"second")[:-3])
        client.send(b"ond")
        client.send(message(b"third") + message(b"fourth"))
        assert [seen for seen, _ in asked(client)] == [b"first", b"second", b"third", b"fourth"]
        assert client.statuses() == [200] * 4

    with_client(check)


def test_a_repeated_request_goes_where_its_route_leads_now() -> None:
    def check(client: Client) -> None:
        client.send(post(b"old"))
        client.send(post(b"old"))
        asked(client)
        spec = replace(client.queue.spec, key=client.queue.spec.key._replace(version="2"))
        queue = client.service._open(spec).queue
        client.service.registry.set_default("m", "2")
        client.send(post(b"new"))
        assert not client.slot.batches
        assert queue.stats.rejections["not_ready"] == 1

    with_client(check)


def test_a_token_is_checked_for_each_of_the_repeated_requests() -> None:
    def check(client: Client) -> None:
        checked = []

        class Guard:
            def check(self, api: str, value: bytes) -> None:
                checked.append(value)
                if len(checked) == 3:
                    raise ServeError("expired", status=401)

        client.shared.guard = Guard()  # type: ignore[assignment]
        for _ in range(3):
            client.send(post().replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer x\r\n\r\n"))
            asked(client)
        assert checked == [b"Bearer x"] * 3
        assert client.statuses() == [200, 200, 401]

    with_client(check)


def test_a_client_whose_heads_always_differ_is_not_compared_for_ever() -> None:
    def check(client: Client) -> None:
        for number in range(20):
            client.send(message(b"x").replace(b"X-A: b", b"X-A: %d" % number))
            asked(client)
        assert client.lane._known is None
        assert client.statuses() == [200] * 20

    with_client(check)


def test_a_chunked_request_is_not_kept() -> None:
    raw = b"POST /p HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    head = RequestHead(b"POST", b"/p", [(b"transfer-encoding", b"chunked")], keep_alive=True)
    assert not head.keep(raw, 11, 1)  # 11 bytes have come behind the head


@pytest.mark.parametrize("kind", ["text/plain", "text/plain\r\nx: y", "", "caf\u00e9"])
def test_an_answer_from_prebuilt_pieces_is_the_same_as_one_put_together(kind: str) -> None:
    def check(client: Client) -> None:
        answers = []
        for particular in (True, False):
            client.shared.particular = particular
            client.transport.written = b""
            client.send(post())
            client.answer(InferenceResponse(b"body", kind))
            answers.append(client.transport.written)
        ids = [data.split(b"x-request-id: ")[1][:36] for data in answers]
        assert ids[0] != ids[1]
        assert answers[0].replace(ids[0], ids[1]) == answers[1]

    with_client(check)


def test_two_requests_that_come_together_are_not_one_the_next_time() -> None:
    pairs = [
        message(b"1") + message(b""),
        HEAD.replace(b"Content-Length: %d\r\n", b"") * 2,
        message(b"12345") + HEAD.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    ]

    def check(client: Client) -> None:
        for sent, pair in enumerate(pairs, 1):
            client.send(pair)
            asked(client)
            client.send(pair)
            asked(client)
            assert client.statuses() == [200] * 4 * sent

    with_client(check)


def test_a_length_in_a_chunk_does_not_frame_the_next_request() -> None:
    chunk = b"x\r\ncontent-length: 4\r\n\r\nabcd"
    raw = b"POST /p HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(chunk), chunk)
    head = RequestHead(b"POST", b"/p", [(b"transfer-encoding", b"chunked")], keep_alive=True)
    for come in range(len(raw) - raw.index(b"\r\n\r\n") - 4):
        assert not head.keep(raw, come, 4)


def test_a_head_that_was_refused_is_not_kept_and_ends_nothing() -> None:
    def check(client: Client) -> None:
        for body in (b"1", b"22", b"333"):
            client.send(message(body).replace(b"X-A: b", b"x-request-timeout: 0"))
        client.send(message(b"4"))
        assert [body for body, _ in asked(client)] == [b"4"]
        assert client.statuses() == [400, 400, 400, 200]

    with_client(check)
