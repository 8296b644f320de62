import asyncio

from mlserve.core.messages import InferenceResponse
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.engine.inline import InlineEngine
from mlserve.errors import ErrorKind

SPEC = ModelSpec(ModelKey("m", "1"), "/", "h")


def _upper(requests):
    return [InferenceResponse(bytes(request.parts[0].data).upper()) for request in requests]


def test_inline_answers_never_come_from_inside_send(rig):
    async def main():
        events = rig.events
        pool = InlineEngine(_upper).open(SPEC, events)
        await pool.scale(1)
        batch = events.batch(b"a", b"b")
        events.ready[0].send(batch)
        assert (events.results, events.ready[0].in_flight) == ({}, 1)
        await pool.scale(0)
        assert events.results == {batch.batch_id: [b"A", b"B"]}
        assert events.closing == events.ready
        assert pool.describe() == []

    asyncio.run(main())


def test_inline_failures_end_every_item(rig):
    async def main():
        events = rig.events
        engine = InlineEngine(lambda requests: [] if requests[0].parts[0].data else 1 / 0)
        pool = engine.open(SPEC, events)
        await pool.scale(1)
        for body in (b"too few", b""):
            results = await events.ask(events.ready[0], body, body)
            assert [error.kind for error in results] == [ErrorKind.HANDLER_FAILED] * 2
        await engine.close()
        assert pool.target == 0

    asyncio.run(main())
