"""The load generator against servers that answer well, slowly, wrongly, in pieces, or not at all."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.answering import OK, Place, Request, answering

from mlserve.errors import ServeError, SettingError
from mlserve.load import LoadResult, Payload, Target, closed_loop, open_loop
from mlserve.load.client import ask_once


def target(place: Place, *payloads: Payload, **fields: Any) -> Target:
    return Target(place.address, "/x", payloads or (Payload(b"body"),), **fields)


def measured(behaviour: Any, *payloads: Payload, count: int = 12, connections: int = 2, **fields: Any) -> LoadResult:
    """A closed loop of ``count`` requests against a server that behaves so."""

    async def main() -> LoadResult:
        async with answering(behaviour) as place:
            return await closed_loop(target(place, *payloads, **fields), connections, 20, count=count)

    return asyncio.run(main())


def says(answer: bytes, *, close: bool = False) -> Any:
    async def behaviour(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        if close:
            writer.close()

    return behaviour


@pytest.mark.parametrize(
    ("answer", "close"),
    [
        (OK, False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 2\r\n\r\nok", True),
        (b"HTTP/1.0 200 OK\r\n\r\nok", True),  # its end is the connection's
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", False),
    ],
    ids=["kept", "closed", "until the end", "after 100", "chunked"],
)
def test_good_answer_counts_as_an_error(answer: bytes, close: bool) -> None:
    result = measured(says(answer, close=close), Payload(b"body", expect=b"ok"))
    assert (result.requests, result.errors, result.latency.count) == (12, {}, 12)
    assert result.received_bytes == 24
    assert result.streamed == (b"chunked" in answer)


@pytest.mark.parametrize(
    ("answer", "close", "kind", "example"),
    [
        (b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nwait", False, "HTTP 503", "wait"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", True, "connection closed before the answer", ""),
        (b"", True, "connection closed before the answer", ""),
        (b"SMTP ready\r\n", False, "answer is not HTTP", "Expected HTTP/"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong", False, "wrong answer", "wrong"),
        (b"HTTP/1.1 302 Go\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n", False, "HTTP 302", ""),
    ],
    ids=["503", "cut short", "nothing", "not HTTP", "wrong", "redirect"],
)
def test_error_is_not_counted_by_its_kind(answer: bytes, close: bool, kind: str, example: str) -> None:
    result = measured(says(answer, close=close), Payload(b"body", expect=b"ok"), count=5)
    assert result.errors == {kind: 5}
    assert (result.requests, result.answered, result.latency.count, result.error_count) == (5, 0, 0, 5)
    assert example in result.examples[kind]


def test_error_document_is_shown_raw() -> None:
    body = b'{"code": 503, "type": "ServiceUnavailable", "message": "no worker"}'
    answer = b"HTTP/1.1 503 No\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    assert measured(says(answer), count=2).examples == {"HTTP 503": "ServiceUnavailable: no worker"}


def test_connections_are_not_kept_or_payloads_do_not_take_turns() -> None:
    async def main() -> Place:
        async with answering() as place:
            result = await closed_loop(target(place, Payload(b"1"), Payload(b"2"), Payload(b"")), 3, 20, count=30)
            assert (result.errors, result.answered, result.connections) == ({}, 30, 3)
            return place

    place = asyncio.run(main())
    assert place.connections == 3
    bodies = [request.body for request in place.requests]
    assert {body: bodies.count(body) for body in set(bodies)} == {b"1": 10, b"2": 10, b"": 10}


def test_server_that_closes_idle_connections_causes_errors() -> None:
    async def behaviour(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        if request.of_connection == 1:
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.close()

    async def main() -> None:
        async with answering(behaviour) as place:
            result = await open_loop(target(place), 20, 0.5, kind="constant", count=8)
            assert (result.errors, result.latency.count) == ({}, 8)
            assert place.connections > 2

    asyncio.run(main())


def test_refused_connection_is_a_busy_loop_or_an_exception() -> None:
    with socket.socket() as taken:  # bound, not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        there = Place(f"http://127.0.0.1:{taken.getsockname()[1]}")
        closed = asyncio.run(closed_loop(target(there), 2, 0.2))
        opened = asyncio.run(open_loop(target(there), 100, 0.2, kind="constant"))
    assert set(closed.errors) == set(opened.errors) == {"connection refused"}
    assert 2 <= closed.requests <= 24
    assert opened.requests == 20


def test_slow_answer_holds_the_run_up() -> None:
    async def never(_request: Request, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def main() -> LoadResult:
        async with answering(never) as place:
            return await closed_loop(target(place, timeout=0.1), 2, 0.15)

    result = asyncio.run(main())
    assert set(result.errors) == {"timeout"}
    assert result.examples["timeout"] == "no answer within 0.1 s"


def test_stop_waits_for_answers_or_loses_the_counts() -> None:
    async def main() -> LoadResult:
        async def third_hangs(request: Request, writer: asyncio.StreamWriter) -> None:
            if request.number == 2:
                stop.set()
                await asyncio.sleep(30)
            writer.write(OK)

        stop = asyncio.Event()
        async with answering(third_hangs) as place:
            return await asyncio.wait_for(closed_loop(target(place), 1, 30, stop=stop), 20)

    result = asyncio.run(main())
    assert result.interrupted
    assert (result.latency.count, result.errors) == (2, {})
    assert result.seconds < 20


def stalling(seconds: float) -> Any:
    """From the tenth request on all wait until the same moment; afterwards answers come at once."""
    until: list[float] = []

    async def behaviour(request: Request, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        if request.number == 10:
            until.append(loop.time() + seconds)
        if until:
            await asyncio.sleep(max(0.0, until[0] - loop.time()))
        writer.write(OK)

    return behaviour


def test_stall_is_hidden_from_an_open_loop() -> None:
    """Coordinated omission: a server stands still for 0.2 of 0.5 seconds. Of requests that come all the same four in
    ten meet that; a patient client meets it once."""

    async def main() -> tuple[LoadResult, LoadResult, LoadResult]:
        results = []
        for connections in (1000, 2):  # with 2 the requests wait in the client, which must not look better
            async with answering(stalling(0.2)) as place:
                results.append(await open_loop(target(place), 200, 0.5, kind="constant", connections=connections))
        async with answering(stalling(0.2)) as place:
            return *results, await closed_loop(target(place), 1, 0.5)

    *opened, closed = asyncio.run(main())
    for result in opened:
        assert result.requests == result.latency.count == 100
        assert result.quantile(0.99) > 0.17
        assert result.quantile(0.8) > 0.05
    assert closed.quantile(0.95) < 0.05


def test_request_without_a_connection_until_the_end_is_left_out() -> None:
    async def main(timeout: float) -> LoadResult:
        async with answering(stalling(0.5)) as place:
            return await open_loop(target(place, timeout=timeout), 100, 0.3, kind="constant", connections=3)

    patient, impatient = asyncio.run(main(30)), asyncio.run(main(0.1))
    assert (patient.requests, patient.latency.count, patient.errors) == (30, 30, {})
    assert patient.quantile(1) > 0.4
    assert impatient.requests == impatient.latency.count + impatient.error_count == 30
    assert impatient.errors["not sent"] > 5
    assert impatient.examples["not sent"] == "all 3 connections were busy"


def test_request_of_the_last_moment_is_left_out_or_an_error() -> None:
    async def main() -> LoadResult:
        async with answering() as place:
            return await open_loop(target(place), 20_000, 0.02, kind="constant")

    result = asyncio.run(main())
    assert result.requests == 400 == result.latency.count + result.error_count


def test_warm_up_is_counted() -> None:
    async def main() -> tuple[LoadResult, int]:
        async def slow_at_first(request: Request, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.1 if request.number < 2 else 0.001)
            writer.write(OK)

        async with answering(slow_at_first) as place:
            result = await closed_loop(target(place), 2, 0.2, warmup=0.2)
            return result, len(place.requests)

    result, came = asyncio.run(main())
    assert result.latency.largest < 0.1
    assert 0 < result.requests < came - 4


def test_first_piece_of_a_stream_is_not_timed() -> None:
    async def in_pieces(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            writer.write(b"2\r\nhi\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")

    result = measured(in_pieces, count=3, connections=1)
    assert result.streamed
    assert result.first_byte.quantile(0.5) < 0.05
    assert result.quantile(0.5) >= 0.15


def test_unix_socket_or_tls_is_not_spoken(tmp_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def main() -> None:
        async with answering(unix=str(tmp_path / "s")) as place:
            assert (await closed_loop(target(place), 2, 20, count=6)).answered == 6
        async with answering(context=context) as place:
            kind, detail = await ask_once(target(place))
            assert (kind, "self-signed" in detail) == ("certificate not trusted", True)
            for trust in ({"insecure": True}, {"cacert": str(tmp_path / "cert.pem")}):
                assert (await closed_loop(target(place, **trust), 2, 20, count=6)).answered == 6
            with pytest.raises(SettingError, match="no such file"):
                await ask_once(target(place, cacert=str(tmp_path / "none")))

    asyncio.run(main())


def test_host_without_an_address_is_a_traceback() -> None:
    with pytest.raises(ServeError, match="has no address"):
        asyncio.run(ask_once(target(Place("http://nowhere.invalid:1"))))
