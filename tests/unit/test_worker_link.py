"""Frames leave whole, however little the socket takes at a time and whoever else is sending."""

import socket
import threading

import pytest

from mlserve.wire.frames import FrameReader, Kind
from mlserve.worker.link import JOIN_BELOW, MAX_VECTOR, Link


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    link = Link(ours)
    yield link, theirs
    ours.close()
    theirs.close()


def receive(sock, count):
    reader, frames = FrameReader(), []
    while len(frames) < count:
        frames += reader.feed(sock.recv(5000))
    return frames


def send_from(*calls):
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize(
    "bodies",
    [
        [],
        [b"", b"a", b""],
        [b"x" * JOIN_BELOW, b"", bytearray(b"y" * 3), memoryview(b"z" * 50_000)],
        [b"ab" * 40] * (2 * MAX_VECTOR + 1),
    ],
)
def test_bodies_arrive_end_to_end(pair, bodies):
    link, peer = pair
    threads = send_from(lambda: link.send(Kind.RESULT, 5, b"meta", bodies))
    (frame,) = receive(peer, 1)
    threads[0].join()
    assert (frame.kind, frame.batch_id, frame.meta) == (Kind.RESULT, 5, b"meta")
    assert bytes(frame.body) == b"".join(bodies)


def test_frames_of_two_threads_are_not_mixed(pair):
    link, peer = pair

    def send(batch_id):
        for _ in range(20):
            link.send(Kind.RESULT, batch_id, b"m", [bytes([batch_id]) * 70_000])
            link.send_meta(Kind.PONG, batch_id)

    threads = send_from(lambda: send(1), lambda: send(2))
    frames = receive(peer, 80)
    for thread in threads:
        thread.join()
    for frame in frames:
        assert set(bytes(frame.body)) <= {frame.batch_id}


def test_send_to_a_server_that_is_gone_is_an_os_error(pair):
    link, peer = pair
    peer.close()
    for length in (1, JOIN_BELOW):
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on the moment
            link.send(Kind.RESULT, 1, b"", [bytes(length)])
