"""Who receives in a worker: the thread that computes while it is idle, and the reader's thread while it computes."""

import os
import random
import socket
import threading
import time

import pytest
from support.worker_driver import Driver

from mlserve.wire.frames import Kind, encode_meta, frame, header
from mlserve.wire.payload import BatchMeta, ItemMeta, PartMeta
from mlserve.worker.link import Link
from mlserve.worker.loop import RECEIVE, RESTS, TICK, Reader, Stop
from mlserve.worker.replies import Replies

QUICK = 30


@pytest.fixture
def slow():
    driver = Driver()
    kind, _, meta, _ = driver.load("slow")
    assert kind == Kind.READY, meta
    for batch_id in range(QUICK):  # from the second one on the thread that computes receives
        assert driver.ask(b"0", batch_id=batch_id)[1] == [b"done"]
    yield driver
    driver.close()


@pytest.mark.parametrize("idle", [0, 3 * RESTS * TICK], ids=["busy", "after a rest"])
def test_ping_is_answered_while_a_later_batch_computes(slow, idle):
    time.sleep(idle)
    slow.batch(100, b"1.5")
    slow.send(frame(Kind.PING, 9))
    assert slow.next()[:2] == (Kind.PONG, 9)
    assert slow.result(100)[1] == [b"done"]


def test_end_of_the_server_is_seen_while_a_later_batch_computes(slow):
    slow.batch(100, b"60")
    slow.sock.close()
    assert slow.end(timeout=30)[0] == 0


def test_later_batch_that_has_not_begun_can_be_cancelled(slow):
    slow.batch(100, b"0.5")
    slow.batch(101, b"60", b"0")
    slow.cancel(101, 0)
    assert slow.result(100)[1] == [b"done"]
    assert slow.result(101)[1] == ["cancelled", b"done"]


@pytest.mark.parametrize("before", [b"0", b"0" * 3 * RECEIVE], ids=["behind a small one", "behind a large one"])
def test_large_batch_is_received_while_another_computes(slow, before):
    """It is more than the socket holds: to have sent it means that the worker has read most of it."""
    slow.ask(before, batch_id=100)
    slow.batch(101, b"2")
    slow.batch(102, b"0" * (4 << 20))
    slow.sock.setblocking(False)
    with pytest.raises(BlockingIOError):  # the first is not answered yet
        slow.sock.recv(1)
    slow.sock.settimeout(20)
    assert slow.result(101)[1] == [b"done"]
    assert slow.result(102)[1] == [b"done"]


class Watched:
    """A socket that knows which threads receive from it."""

    def __init__(self, sock):
        self.receivers = set()
        self.close, self._receive = sock.close, sock.recv_into

    def recv_into(self, buffer):
        self.receivers.add(threading.current_thread().name)
        return self._receive(buffer)


def batch(batch_id, size):
    body = batch_id.to_bytes(4, "little") * size
    meta = encode_meta(BatchMeta([ItemMeta("r", [PartMeta("body", "", len(body))], [])]))
    return header(Kind.BATCH, batch_id, len(meta), len(body)) + meta + body


def test_batches_come_in_order_whoever_receives_them():
    """Small and large ones, computed for shorter and for longer than a tick, with pauses of the server."""
    ours, theirs = socket.socketpair()
    sock = Watched(ours)
    reader = Reader(Link(sock), Replies(None))
    reader.start()
    dice = random.Random(1)
    count = 1500

    def send():
        for batch_id in range(count):
            theirs.sendall(batch(batch_id, dice.choice([1, 1, 1, 100, RECEIVE // 8, RECEIVE])))
            if batch_id % 100 == 0:
                time.sleep(0.02)
        theirs.close()

    sender = threading.Thread(target=send)
    sender.start()
    pace = random.Random(2)
    taken = []
    while not isinstance(work := reader.take(), Stop):
        assert work.body[:4] == work.batch_id.to_bytes(4, "little")
        taken.append(work.batch_id)
        if pace.random() < 0.03:
            time.sleep(pace.choice([TICK / 5, 3 * TICK]))
        reader.done(work)
    reader.finish()
    sender.join()
    ours.close()
    assert taken == list(range(count))
    assert sock.receivers == {"MainThread", "mlserve-reader"}


def test_idle_worker_is_not_woken(slow):
    """Nothing runs in it but what is asked of it: its threads are not switched to."""
    time.sleep(3 * RESTS * TICK)
    before, later = switches(slow.process.pid), 0
    for _ in range(10):  # a start of the machine's own may fall into one
        time.sleep(0.2)
        later = switches(slow.process.pid)
        if later == before:
            return
        before = later
    raise AssertionError("an idle worker is woken all the time")


def switches(pid):
    """How often threads of the process have waited, all together."""
    count = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="utf-8") as file:
            count += next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches"))
    return count
