"""Workers that have requests side by side: what their silence and their death mean."""

ASYNC = """
import asyncio, os, time

async def handle(data, context):
    if data is None:
        return
    text = bytes(data[0]["body"]).decode()
    if text == "die":
        os._exit(9)
    if text == "block":
        time.sleep(60)
    await asyncio.sleep(float(text))
    return [text]
"""


def test_a_handler_that_awaits_may_take_longer_than_the_response_timeout(rig):
    async def check(pool, events):
        await pool.scale(1)
        slow, fast = events.batch(b"2.5"), events.batch(b"0.1")
        events.ready[0].send(slow)
        events.ready[0].send(fast)
        await events.until(lambda: len(events.results) == 2)
        assert list(events.results) == [fast.batch_id, slow.batch_id]
        assert events.results[slow.batch_id] == [b"2.5"]
        assert not events.lost

    rig.run(rig.spec(ASYNC, async_communication=True, response_timeout=1.5), check)


def test_one_that_blocks_the_loop_is_replaced_and_all_it_had_counts_as_begun(rig):
    async def check(pool, events):
        await pool.scale(1)
        for body in (b"30", b"30", b"block"):
            events.ready[0].send(events.batch(body))
        await events.until(lambda: events.lost)
        _slot, started, unstarted, error = events.lost[0]
        assert (len(started), unstarted) == (3, [])
        assert "did not answer in time" in error.message
        await events.until(lambda: len(events.ready) == 2)

    rig.run(rig.spec(ASYNC, async_communication=True, response_timeout=1.5), check)


def test_a_crash_takes_all_requests_of_the_worker(rig):
    async def check(pool, events):
        await pool.scale(1)
        for body in (b"30", b"die"):
            events.ready[0].send(events.batch(body))
        await events.until(lambda: events.lost)
        assert len(events.lost[0][1]) == 2

    rig.run(rig.spec(ASYNC, async_communication=True), check)
