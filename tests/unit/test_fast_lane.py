"""The fast lane without a socket: answers in order and whole, and bounds on what one client can make it hold."""

from __future__ import annotations

import gc
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from support.lane_client import MIB, OK, Client, post, with_client

from mlserve.core.messages import Chunk, InferenceResponse
from mlserve.errors import ServeError
from mlserve.rest import request_head
from mlserve.rest.fast import FastLane


def test_a_large_answer_to_a_client_that_reads_later_is_not_cut() -> None:
    def check(client: Client) -> None:
        client.transport.reads = False
        client.send(post())
        client.answer(InferenceResponse(b"z" * (40 * MIB)))
        assert not client.transport.aborted
        assert client.transport.written.endswith(b"z" * MIB)

    with_client(check)


def test_a_stream_that_nobody_reads_is_cut() -> None:
    def check(client: Client) -> None:
        client.transport.reads = False
        client.send(post())
        for _ in range(40):
            client.queue.item_chunk(client.slot.batches[0], 0, Chunk(b"z" * MIB))
        assert client.transport.aborted

    with_client(check)


def test_pipelined_requests_that_come_with_half_a_head_are_not_refused() -> None:
    def check(client: Client) -> None:
        bytes_of_eight = post(b"y" * 4000) * 8
        client.send(bytes_of_eight[:-4010])
        client.send(bytes_of_eight[-4010:])
        while client.slot.batches:
            client.answer(OK)
        assert client.statuses() == [200] * 8

    with_client(check)


def test_a_head_without_end_is_refused_behind_other_requests_too() -> None:
    def check(client: Client) -> None:
        client.send(post() + b"POST /predictions/m HTTP/1.1\r\nx: ")
        for _ in range(5):
            client.send(b"y" * 1000)
        client.answer(OK)
        assert client.statuses() == [200, 431]

    with_client(check)


CHUNKED = b"POST /predictions/m HTTP/1.1\r\nx-request-id: mine\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"


def test_trailers_do_not_change_the_request() -> None:
    def check(client: Client) -> None:
        client.send(CHUNKED + b"x-request-id: other\r\nx-request-timeout: junk\r\n\r\n")
        client.answer(OK)
        assert client.statuses() == [200]
        assert b"x-request-id: mine" in client.transport.written

    with_client(check)


@pytest.mark.parametrize("piece", [b"t: y\r\n" * 200, b"y" * 1000], ids=["many trailers", "one trailer"])
def test_trailers_without_end_are_refused(piece: bytes) -> None:
    def check(client: Client) -> None:
        client.send(CHUNKED + b"t: ")
        for _ in range(5):
            client.send(piece)
        assert client.statuses() == [431]

    with_client(check)


def test_a_stream_behind_a_slow_answer_cannot_fill_the_memory() -> None:
    def check(client: Client) -> None:
        client.send(post() * 2)
        _, second = client.slot.batches
        for _ in range(100):
            client.queue.item_chunk(second, 0, Chunk(b"z" * MIB))
        assert client.slot.cancelled == [(second.batch_id, 0)]
        assert not client.transport.is_closing()
        client.answer(OK)
        assert client.statuses() == [200, 200]
        assert client.transport.closed
        assert len(client.transport.written) < 35 * MIB

    with_client(check)


def test_a_stream_that_breaks_leaves_the_answers_before_it_whole() -> None:
    def check(client: Client) -> None:
        client.send(post() * 2)
        client.queue.item_chunk(client.slot.batches[1], 0, Chunk(b"half"))
        client.answer(ServeError("broken"), position=1)
        assert not client.transport.is_closing()
        client.answer(OK)
        assert client.statuses() == [200, 200]
        assert client.transport.written.endswith(b"4\r\nhalf\r\n")  # and no last chunk: the body is not whole
        assert client.transport.closed

    with_client(check)


def test_a_broken_stream_to_http_1_0_does_not_look_whole() -> None:
    def check(client: Client) -> None:
        client.send(post(version="1.0"))
        client.queue.item_chunk(client.slot.batches[0], 0, Chunk(b"half"))
        client.answer(ServeError("broken"))
        assert client.transport.aborted

    with_client(check)


def test_an_http_1_0_client_does_not_wait_for_the_end_of_a_connection_that_stays_open() -> None:
    """``ab -k`` reads up to it unless it is told."""

    def check(client: Client) -> None:
        for result in (OK, ServeError("no"), InferenceResponse(b"ok", headers=(("a", "b"),))):
            client.transport.written = b""
            client.send(post(version="1.0").replace(b"\r\n", b"\r\nConnection: keep-alive\r\n", 1))
            client.answer(result)
            assert client.transport.written.count(b"\r\nconnection: keep-alive\r\n") == 1
            assert not client.transport.closed
        client.transport.written = b""
        client.send(post())
        client.answer(OK)
        assert b"connection:" not in client.transport.written

    with_client(check)


def test_a_chunked_request_of_http_1_0_ends_its_connection() -> None:
    """RFC 9112, 6.1: what passed it on may have seen another end of it."""

    def check(client: Client) -> None:
        head = b"POST /predictions/m HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + b"1\r\nx\r\n0\r\n\r\n" + post())
        client.answer(OK)
        assert client.transport.closed
        assert client.statuses() == [200]
        assert not client.slot.batches

    with_client(check)


def test_an_http_1_0_client_is_not_told_to_go_on() -> None:
    """It would take that for the answer (RFC 9110, 10.1.1)."""

    def check(client: Client) -> None:
        client.send(post(version="1.0").replace(b"\r\n", b"\r\nExpect: 100-continue\r\n", 1))
        assert client.transport.written == b""
        client.answer(OK)
        assert client.statuses() == [200]

    with_client(check)


def test_an_idle_connection_holds_no_body_that_has_been_answered() -> None:
    """As many as 250 KB for each, which nothing bounded."""

    def check(client: Client) -> None:
        data = post(b"y" * 50_000)
        before = sys.getrefcount(data)
        client.send(data)
        client.answer(OK)
        assert sys.getrefcount(data) == before

    with_client(check)


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    def check(client: Client) -> None:
        client.send(post())
        client.lane.pause_writing()
        client.answer(OK)
        assert not client.transport.reading
        client.lane.resume_writing()
        assert client.transport.reading

    with_client(check)


def test_requests_for_the_other_server_do_not_gather_without_end() -> None:
    def check(client: Client) -> None:
        half = b"GET /api-description HTTP/1.1\r\n"
        client.send(post() + half)
        for _ in range(100):  # each piece ends in the middle of a request, so there is never a moment to hand over
            client.send(b"x-pad: " + b"p" * 3000 + b"\r\n\r\n" + half)
        client.answer(OK)
        assert client.statuses() == [200, 413]

    with_client(check)


def test_a_fault_while_a_request_is_read_does_not_leave_it_unanswered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(request_head, "decode", fail)
    form = post().replace(b"\r\n\r\n", b"\r\ncontent-type: application/x-www-form-urlencoded\r\n\r\n", 1)

    def check(client: Client) -> None:
        client.send(form)
        assert client.statuses() == [500]
        assert b"secret" not in client.transport.written
        assert "secret" in caplog.text

    with_client(check)


def test_a_slow_body_is_given_as_long_as_it_makes_progress() -> None:
    now = [1000.0]

    def check(client: Client) -> None:
        client.shared.now = lambda: now[0]
        message = post(b"x" * 4)
        for piece in (message[:-4], b"x", b"x"):
            client.send(piece)
            now[0] += 25
            client.lane.check_time(now[0])
        assert client.statuses() == []
        now[0] += 6
        client.lane.check_time(now[0])
        assert client.statuses() == [408]

    with_client(check)


def test_a_client_that_never_reads_its_answer_is_cut_and_a_slow_one_is_not() -> None:
    now = [1000.0]

    def check(client: Client) -> None:
        client.shared.now = lambda: now[0]
        client.transport.reads = False
        client.send(post())
        client.answer(InferenceResponse(b"z" * MIB))
        for _ in range(4):
            now[0] += 50
            client.transport.written = client.transport.written[:-1000]  # it reads a little
            client.lane.check_time(now[0])
        assert not client.transport.is_closing()
        now[0] += 76
        client.lane.check_time(now[0])
        assert client.transport.aborted

    with_client(check)


REQUESTS = [post(), post(b"y" * 100_000), post(b"y" * 100_000)[:80_000], post(path="/models"), b"?\r\n\r\n", b"POST /"]


@pytest.mark.parametrize("data", REQUESTS, ids=("small", "large", "half", "cold", "bad", "begun"))
def test_a_connection_that_has_ended_does_not_stay_until_the_next_collection(data: bytes) -> None:
    """Of short connections 2,400 came and went between two collections, 5 KiB each."""

    def count() -> int:
        return sum(type(each) is FastLane for each in gc.get_objects())

    def check(client: Client) -> None:
        slow = SimpleNamespace(connection_made=lambda transport: None, data_received=lambda data: None)
        client.shared.slow = lambda: slow  # type: ignore[assignment, return-value]
        client.transport.set_protocol = lambda protocol: None  # type: ignore[attr-defined]
        client.send(data)
        client.lane.connection_lost(None)
        client.clock.turn()
        del client.lane
        assert count() == before

    gc.collect()
    before = count()
    gc.disable()
    try:
        with_client(check)
    finally:
        gc.enable()
