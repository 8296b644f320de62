"""The link without a process: what the worker's bytes become, and what a faulty worker cannot do."""

import asyncio
from time import monotonic

import pytest
from support.core_fakes import FakeClock, make_queue

from mlserve.core.job import SENT, Batch, Job
from mlserve.core.messages import InferenceRequest, InferenceResponse, Part
from mlserve.engine.local.link import WorkerLink
from mlserve.errors import ErrorKind
from mlserve.wire.arena import ARENA_FROM
from mlserve.wire.frames import MAX_BODY, FrameReader, Kind, encode_meta, frame, header
from mlserve.wire.lending import LendingArena
from mlserve.wire.payload import ChunkMeta, ItemResult, LogRecordMeta, ResultMeta


def sent(request):
    job = Job()
    job.queue, job.request = make_queue(FakeClock()), request
    job.state = SENT
    return job


class Events:
    def __init__(self):
        self.done, self.chunks, self.broken = [], [], False

    def batch_done(self, slot, batch, results, report):
        self.done.append((batch.batch_id, slot.in_flight, results, report))
        if self.broken:
            raise RuntimeError("a fault above")

    def item_chunk(self, batch, index, chunk):
        self.chunks.append((batch.batch_id, index, chunk.data))
        if self.broken:
            raise RuntimeError("a fault above")


class Owner:
    def __init__(self):
        self.faults, self.logs, self.closed = [], [], 0

    def link_fault(self, slug, text):
        self.faults.append((slug, text))

    def link_log(self, record):
        self.logs.append(record)

    def link_closed(self):
        self.closed += 1


class Transport:
    """Collects what is written; ``frames`` reads it as the worker would."""

    def __init__(self):
        self.writes, self.aborted = [], False

    def write(self, data):
        self.writes.append(bytes(data))

    def writelines(self, buffers):
        self.writes += [bytes(buffer) for buffer in buffers]

    def abort(self):
        self.aborted = True

    @property
    def frames(self):
        return FrameReader().feed(b"".join(self.writes))


class Rig:
    def __init__(self, request_arena=None, reply_arena=None, at_once=1):
        self.events, self.owner, self.transport = Events(), Owner(), Transport()
        self.link = WorkerLink(9000, self.events, self.owner, request_arena, reply_arena, at_once=at_once)
        self.link.connection_made(self.transport)

    def send(self, batch_id, *bodies):
        batch = Batch(batch_id, [sent(InferenceRequest("r", [Part("body", body)])) for body in bodies], 0.0)
        self.link.send(batch)
        return batch


def in_loop(test):
    """Run a test that takes no fixture inside an event loop."""

    def wrapper():
        async def main():
            await test()

        asyncio.run(main())

    wrapper.__name__ = test.__name__
    return wrapper


def result(batch_id, *bodies, items=None):
    now = monotonic()
    meta = encode_meta(ResultMeta(items or [ItemResult(len(body)) for body in bodies], now, now, now))
    body = b"".join(bodies)
    return header(Kind.RESULT, batch_id, len(meta), len(body)) + meta + body


def bodies(results):
    return [bytes(r.body) if isinstance(r, InferenceResponse) else r for r in results]


@in_loop
async def test_results_match_by_id_and_not_by_order():
    rig = Rig()
    rig.send(7, b"a")
    rig.send(8, b"b", b"c")
    rig.link.data_received(result(8, b"B", b"C") + result(7, b"A"))
    assert [(i, left, bodies(r)) for i, left, r, _ in rig.events.done] == [(8, 1, [b"B", b"C"]), (7, 0, [b"A"])]


@in_loop
async def test_a_result_that_nobody_waits_for_changes_nothing():
    rig = Rig()
    rig.link.data_received(result(5, b"late"))
    assert (rig.events.done, rig.owner.faults, rig.link.in_flight) == ([], [], 0)


@in_loop
async def test_any_cut_of_the_stream_gives_the_same_results():
    stream = result(1, b"one") + result(2, b"", b"x" * 300)
    for piece in (1, 7, 16, 33, 400):
        rig = Rig()
        rig.send(1, b"")
        rig.send(2, b"", b"")
        for at in range(0, len(stream), piece):
            rig.link.data_received(stream[at : at + piece])
        assert [bodies(r) for _, _, r, _ in rig.events.done] == [[b"one"], [b"", b"x" * 300]]


@in_loop
async def test_an_error_of_one_item_leaves_the_bodies_of_the_others_in_place():
    rig = Rig()
    rig.send(1, b"", b"", b"")
    items = [
        ItemResult(1),
        ItemResult(error="handler_failed", message="no", status=418, detail="trace"),
        ItemResult(2, "text/plain", 201, "Made", [("a", "b")]),
    ]
    rig.link.data_received(result(1, b"x", b"yz", items=items))
    ((_, _, (first, second, third), _),) = rig.events.done
    assert bytes(first.body) == b"x"
    assert (second.kind, second.message, second.status, second.detail) == (ErrorKind.HANDLER_FAILED, "no", 418, "trace")
    assert (bytes(third.body), third.content_type, third.status, third.reason) == (b"yz", "text/plain", 201, "Made")
    assert [tuple(pair) for pair in third.headers] == [("a", "b")]


@in_loop
async def test_an_error_kind_that_this_server_does_not_know_is_internal():
    rig = Rig()
    rig.send(1, b"")
    rig.link.data_received(result(1, items=[ItemResult(error="from_the_future", message="?")]))
    assert rig.events.done[0][2][0].kind is ErrorKind.INTERNAL


BAD = {
    "too few results": lambda: result(1, b"x"),
    "bytes left over": lambda: result(1, b"x", b"yy", items=[ItemResult(1), ItemResult(1)]),
    "bytes missing": lambda: result(1, b"x", items=[ItemResult(1), ItemResult(9)]),
    "negative length": lambda: result(1, b"xx", items=[ItemResult(-1), ItemResult(3)]),
    "arena without an arena": lambda: result(1, items=[ItemResult(), ItemResult(1, offset=0)]),
    "meta is no result": lambda: frame(Kind.RESULT, 1, {"a": 1}),
    "meta is no msgpack": lambda: header(Kind.RESULT, 1, 3) + b"\xc1\xc1\xc1",
    "text is no UTF-8": lambda: header(Kind.CHUNK, 1, 4) + b"\x92\x00\xa1\xff",
    "chunk outside the batch": lambda: frame(Kind.CHUNK, 1, ChunkMeta(2)),
    "a frame that only we send": lambda: frame(Kind.PING),
    "not a frame": lambda: b"HTTP/1.1 200 OK\r\n",
}


@pytest.mark.parametrize("what", BAD)
def test_a_worker_that_breaks_the_protocol_is_given_up_and_nothing_is_made_up(what):
    async def main():
        rig = Rig()
        batch = rig.send(1, b"a", b"b")
        rig.link.data_received(BAD[what]())
        assert [slug for slug, _ in rig.owner.faults] == ["protocol_error"]
        assert rig.transport.aborted
        assert rig.events.done == []
        assert rig.link.abandon() == [batch], "the batch is still there to be paid back"

    asyncio.run(main())


@in_loop
async def test_a_fault_in_what_takes_the_results_does_not_cost_the_worker():
    rig = Rig()
    rig.events.broken = True
    rig.send(1, b"")
    rig.send(2, b"")
    rig.link.data_received(frame(Kind.CHUNK, 1, ChunkMeta(0)) + result(1, b"") + result(2, b""))
    assert len(rig.events.done) == 2
    assert (rig.owner.faults, rig.link.in_flight) == ([], 0)


@in_loop
async def test_abandoned_batches_come_back_oldest_first_and_once():
    rig = Rig()
    first, second = rig.send(3, b""), rig.send(1, b"")
    rig.link.connection_lost(None)
    assert rig.owner.closed == 1
    third = rig.send(9, b"")  # the queue has not heard yet
    assert rig.link.abandon() == [first, second, third]
    assert (rig.link.abandon(), rig.link.in_flight) == ([], 0)


@in_loop
async def test_large_parts_use_the_arena_and_give_it_back():
    arena = LendingArena.create(4 * ARENA_FROM)
    rig = Rig(arena)
    large = bytes(range(256)) * (ARENA_FROM // 256)
    rig.send(1, large, b"small", large * 4)  # the last one does not fit and goes by the socket
    (sent,) = rig.transport.frames
    assert bytes(sent.body) == b"small" + large * 4
    assert bytes(arena.view(0, len(large))) == large
    rig.link.data_received(result(1, b"x", b"y", b"z"))
    assert arena.lend(4 * ARENA_FROM) is not None, "the whole of it is free again"
    rig.send(2, large)
    rig.link.abandon()
    assert arena.lend(4 * ARENA_FROM) is not None
    arena.close()


@in_loop
async def test_a_body_that_was_read_into_the_arena_is_not_copied_and_stays_for_another_worker():
    arena = LendingArena.create(2 * ARENA_FROM)
    first, second = Rig(arena), Rig(arena)
    body = arena.lend(ARENA_FROM)
    body[:] = b"b" * ARENA_FROM
    batch = first.send(1, body)
    del body
    first.link.abandon()  # it died; the queue has the batch again
    second.link.send(batch)
    assert first.transport.frames[0].meta == second.transport.frames[0].meta, "it lies where it lay"
    assert arena.lend(2 * ARENA_FROM) is None
    batch.jobs[0].request = InferenceRequest("r", [])  # cancelled: nobody waits, but the worker is still reading
    assert arena.lend(2 * ARENA_FROM) is None
    second.link.data_received(result(1, b""))
    assert arena.lend(2 * ARENA_FROM) is not None
    arena.close()


@in_loop
async def test_answers_stay_in_the_workers_arena_until_nobody_has_a_view_of_them():
    replies = LendingArena.create(1 << 20)
    rig = Rig(None, replies)
    replies.write(64, b"from the arena")
    replies.write(4096, b"another")
    rig.send(1, b"", b"", b"")
    items = [ItemResult(14, offset=64), ItemResult(1), ItemResult(7, offset=4096)]
    rig.link.data_received(result(1, b"x", items=items))
    ((_, _, answers, _),) = rig.events.done
    rig.events.done.clear()
    assert bodies(answers) == [b"from the arena", b"x", b"another"]
    piece = answers[0].body[5:8]
    del answers
    rig.send(2, b"")
    assert [frm.kind for frm in rig.transport.frames] == [Kind.BATCH, Kind.BATCH]
    assert bytes(piece) == b"the"
    del piece
    rig.send(3, b"")
    assert [(frm.kind, frm.batch_id) for frm in rig.transport.frames[2:]] == [(Kind.RELEASE, 1), (Kind.BATCH, 3)]
    replies.close()


@in_loop
async def test_a_reply_outside_the_arena_is_a_protocol_error():
    replies = LendingArena.create(4096)
    rig = Rig(None, replies)
    rig.send(1, b"")
    rig.link.data_received(result(1, items=[ItemResult(4096, offset=64)]))
    assert [slug for slug, _ in rig.owner.faults] == ["protocol_error"]
    replies.close()


class Huge(bytes):
    def __len__(self):
        return MAX_BODY


@in_loop
async def test_a_batch_that_no_frame_can_hold_is_refused_without_hurting_the_worker():
    rig = Rig()
    rig.send(1, Huge(), b"xx")
    assert rig.events.done == [], "not while the queue is still sending"
    await asyncio.sleep(0)
    ((_, in_flight, results, _),) = rig.events.done
    assert (in_flight, rig.transport.writes) == (0, [])
    assert [error.kind for error in results] == [ErrorKind.TOO_LARGE] * 2


@in_loop
async def test_a_batch_whose_names_no_frame_can_hold_does_not_kill_the_worker():
    rig = Rig()
    rig.link.send(Batch(1, [sent(InferenceRequest("r", [Part("\N{REPLACEMENT CHARACTER}" * (22 << 20), b"")]))], 0.0))
    await asyncio.sleep(0)
    ((_, _, results, _),) = rig.events.done
    assert rig.transport.writes == []  # the worker would take such a frame for a broken stream, and exit
    assert [error.kind for error in results] == [ErrorKind.TOO_LARGE]


@in_loop
async def test_cancel_names_the_item_and_only_while_the_batch_is_there():
    rig = Rig()
    batch = rig.send(4, b"", b"")
    rig.link.cancel(batch, 1)
    rig.link.data_received(result(4, b"", b""))
    rig.link.cancel(batch, 0)
    assert [(f.kind, f.batch_id, f.meta) for f in rig.transport.frames[1:]] == [(Kind.CANCEL, 4, b"\x91\x01")]


@in_loop
async def test_draining_ends_with_the_last_batch():
    rig = Rig()
    await rig.link.drained()
    rig.send(1, b"")
    rig.send(2, b"")
    waiting = asyncio.ensure_future(rig.link.drained())
    for batch_id, done in ((1, False), (2, True)):
        rig.link.data_received(result(batch_id, b""))
        for _ in range(3):
            await asyncio.sleep(0)
        assert waiting.done() is done


@in_loop
async def test_a_chunk_counts_as_progress_and_goes_to_its_item():
    rig = Rig()
    rig.send(1, b"", b"")
    rig.link.progress = 0.0
    meta = encode_meta(ChunkMeta(1, "text/plain"))
    rig.link.data_received(header(Kind.CHUNK, 1, len(meta), 2) + meta + b"hi")
    rig.link.data_received(header(Kind.CHUNK, 5, len(meta), 2) + meta + b"no")
    assert rig.events.chunks == [(1, 1, b"hi")]
    assert rig.link.progress > 0
    rig.link.data_received(frame(Kind.LOG, 0, LogRecordMeta(20, "l", "m", 0.0)))
    assert rig.owner.logs[0].message == "m"


def test_a_stuck_batch_is_noticed_beside_others_that_go_on(monkeypatch):
    """``progress`` is what the response timeout looks at: that of the oldest of those which can be computing."""
    moment = [100.0]
    monkeypatch.setattr("mlserve.engine.local.link.monotonic", lambda: moment[0])
    asyncio.run(_stuck(moment))


async def _stuck(moment):
    rig = Rig(at_once=2)
    for batch_id in (1, 2, 3):
        moment[0] += 1
        rig.send(batch_id, b"x")  # the third waits in the worker
    assert rig.link.progress == 101
    moment[0] = 110
    rig.link.data_received(result(2, b"done"))  # and now the third is computed
    assert rig.link.progress == 101
    moment[0] = 120
    rig.link.data_received(result(1, b"done"))
    assert rig.link.progress == 110
    moment[0] = 130
    rig.link.data_received(result(3, b"done"))
    assert rig.link.progress == 130


@in_loop
async def test_batches_that_a_dead_worker_left_are_not_waited_for_by_the_next():
    rig = Rig(at_once=2)
    rig.send(1, b"x")
    assert [batch.batch_id for batch in rig.link.abandon()] == [1]
    rig.link.data_received(result(1, b"late"))
    rig.send(2, b"x")
    rig.link.data_received(result(2, b"y"))
    assert [i for i, *_ in rig.events.done] == [2]


@in_loop
async def test_lying_in_the_socket_behind_another_batch_is_waiting_and_not_transfer():
    """Else a policy takes it for what the batch costs."""
    rig = Rig()
    rig.send(1, b"")
    rig.send(2, b"")
    begun = monotonic()
    for number in (0, 1):
        at = begun + 5.001 * number  # the worker receives the second when it has ended the first
        meta = encode_meta(ResultMeta([ItemResult(0)], at, at, at + 5))
        rig.link.data_received(header(Kind.RESULT, number + 1, len(meta), 0) + meta)
    first, second = (report for *_, report in rig.events.done)
    assert first.waited == 0
    assert second.waited == pytest.approx(5, abs=1)
