"""Changes that meet: scaling, giving up, unregistering and stopping while something else is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.core_fakes import FakeSlot

from mlserve.core.events import STREAM_BACKLOG
from mlserve.core.job import Job
from mlserve.core.messages import Chunk, InferenceRequest, Part
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.core.service import InferenceService
from mlserve.errors import ErrorKind, NoWorker, ServeError


class Pool:
    """Workers that load when ``loaded`` is set, and are killed with what they have when their time is up."""

    def __init__(self, events: Any) -> None:
        self.events = events
        self.target = 0
        self.slots: list[FakeSlot] = []
        self.loaded = asyncio.Event()
        self.stops: list[float] = []
        self._lock = asyncio.Lock()

    async def scale(self, count: int) -> None:
        async with self._lock:
            self.target = count
            while len(self.slots) < count:
                await self.loaded.wait()
                self.slots.append(FakeSlot(self.events))
                self.events.slot_ready(self.slots[-1])
            for slot in self.slots[count:]:
                self.events.slot_closing(slot)
                while slot.batches:
                    await asyncio.sleep(0)
            del self.slots[count:]

    async def stop(self, grace: float) -> None:
        self.stops.append(grace)
        for slot in self.slots:
            slot.die()

    def describe(self) -> list[Any]:
        return []


class Rig:
    """A service with a model ``m`` of one worker."""

    def __init__(self) -> None:
        self.pools: list[Pool] = []
        self.released = 0
        self.ended: list[Job] = []
        self.service = InferenceService(self, self, asyncio.get_running_loop(), default_workers=1)  # type: ignore[arg-type]

    def open(self, spec: ModelSpec, events: Any) -> Pool:
        self.pools.append(Pool(events))
        return self.pools[-1]

    async def close(self) -> None:
        for pool in self.pools:
            await pool.stop(0)

    async def resolve(self, url: str, overrides: dict[str, Any]) -> ModelSpec:
        return ModelSpec(ModelKey(url, "1"), "/x", "h")

    def release(self, spec: ModelSpec) -> None:
        self.released += 1

    def forget(self, spec: ModelSpec) -> None:
        pass

    async def ready(self) -> Pool:
        await self.service.register("m", {}, synchronous=False)
        self.pools[0].loaded.set()
        await turns()
        return self.pools[0]

    def ask(self, count: int = 1) -> None:
        for _ in range(count):
            request = InferenceRequest("r", [Part("body", b"x")])
            self.service.submit(self.service.find("m"), request, self.ended.append, lambda job, chunk: None)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def with_rig(test: Callable[[Rig], Awaitable[None]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(test(Rig()), 10)

    asyncio.run(run())


def test_requests_that_wait_when_the_last_worker_goes_are_not_left_unanswered() -> None:
    async def check(rig: Rig) -> None:
        pool = await rig.ready()
        rig.ask(5)
        await turns()
        slot = pool.slots[0]
        change = asyncio.ensure_future(rig.service.scale("m", min_workers=0, synchronous=True))
        await turns()
        while slot.batches:
            slot.answer()
        await change
        assert len(rig.ended) == 5
        assert [type(job.result) for job in rig.ended].count(NoWorker) == 3  # two were in the worker

    with_rig(check)


def test_a_model_scaled_down_while_it_was_scaled_up_does_not_take_requests_for_ever() -> None:
    async def check(rig: Rig) -> None:
        await rig.service.register("m", {}, synchronous=False)
        await turns()
        down = asyncio.ensure_future(rig.service.scale("m", min_workers=0, synchronous=True))
        await turns()
        rig.pools[0].loaded.set()  # only now is the worker of the first call there
        await down
        with pytest.raises(NoWorker):
            rig.ask()

    with_rig(check)


def test_requests_are_kept_for_the_worker_that_a_later_call_asked_for() -> None:
    async def check(rig: Rig) -> None:
        pool = await rig.ready()
        pool.loaded.clear()
        down = asyncio.ensure_future(rig.service.scale("m", min_workers=0, synchronous=True))
        up = asyncio.ensure_future(rig.service.scale("m", min_workers=1, synchronous=True))
        await turns()
        rig.ask()
        pool.loaded.set()
        await asyncio.gather(down, up)
        await turns()
        pool.slots[0].answer()
        assert [job.result.body for job in rig.ended] == [b"r"]  # type: ignore[union-attr]

    with_rig(check)


def test_a_version_whose_workers_were_given_up_does_not_look_as_if_it_was_loading() -> None:
    async def check(rig: Rig) -> None:
        pool = await rig.ready()
        pool.slots.pop().die()
        pool.events.gave_up(ServeError("died too often"))
        (told,) = rig.service.describe("m")
        assert (told.state, told.last_error) == ("FAILED", "died too often")
        assert not rig.service.health().models["m"]

    with_rig(check)


def test_stopping_takes_no_longer_than_its_grace() -> None:
    async def check(rig: Rig) -> None:
        pool = await rig.ready()
        rig.ask()
        await turns()
        await rig.service.shutdown(0.05)
        assert pool.stops[0] == 0  # the time was used up by waiting for the answer
        assert [job.result.kind for job in rig.ended] == [ErrorKind.NOT_READY]  # type: ignore[union-attr]

    with_rig(check)


def test_a_version_that_drains_is_not_killed_by_a_stop() -> None:
    async def check(rig: Rig) -> None:
        pool = await rig.ready()
        rig.ask()
        await turns()
        gone = asyncio.ensure_future(rig.service.unregister("m"))
        await turns()
        stop = asyncio.ensure_future(rig.service.shutdown(5.0))
        await turns()
        assert not pool.stops
        pool.slots[0].answer()
        await asyncio.gather(gone, stop)
        assert [job.result.body for job in rig.ended] == [b"r"]  # type: ignore[union-attr]

    with_rig(check)


def test_a_version_that_drains_does_not_hold_up_a_stop() -> None:
    async def check(rig: Rig) -> None:
        await rig.ready()
        rig.ask()
        await turns()
        gone = asyncio.ensure_future(rig.service.unregister("m"))
        await turns()
        await rig.service.shutdown(0.05)
        await gone
        assert len(rig.ended) == 1

    with_rig(check)


def test_unregistering_while_the_server_stops_is_not_a_fault() -> None:
    async def check(rig: Rig) -> None:
        pool = await rig.ready()
        rig.ask()
        await turns()
        stop = asyncio.ensure_future(rig.service.shutdown(5.0))
        await turns()
        gone = asyncio.ensure_future(rig.service.unregister("m"))
        await turns()
        pool.slots[0].answer()
        await asyncio.gather(stop, gone)
        assert rig.released == 1

    with_rig(check)


def test_no_worker_is_started_once_the_server_stops() -> None:
    async def check(rig: Rig) -> None:
        resolved = asyncio.Event()
        resolve = rig.resolve

        async def slow(url: str, overrides: dict[str, Any]) -> ModelSpec:
            await resolved.wait()
            return await resolve(url, overrides)

        rig.resolve = slow  # type: ignore[method-assign]
        early = asyncio.ensure_future(rig.service.register("m", {}))
        await turns()
        await rig.service.shutdown(0)
        resolved.set()
        for late in (early, rig.service.register("m", {})):
            with pytest.raises(ServeError, match="stopping"):
                await late
        assert not rig.pools
        assert rig.released == 1

    with_rig(check)


def test_a_stream_whose_client_does_not_read_cannot_fill_the_memory() -> None:
    async def check(rig: Rig) -> None:
        pool = await rig.ready()
        request = InferenceRequest("r", [Part("body", b"x")])
        events = rig.service.events(rig.service.find("m"), request)
        first = asyncio.ensure_future(anext(events))  # type: ignore[arg-type]
        await turns()
        (batch,) = pool.slots[0].batches
        for _ in range(100):
            pool.events.item_chunk(batch, 0, Chunk(b"z" * (1 << 20)))
        assert pool.slots[0].cancelled == [(batch.batch_id, 0)]
        got = [await first]
        got += [event async for event in events]
        assert sum(len(event.data) for event in got if isinstance(event, Chunk)) <= STREAM_BACKLOG + (1 << 20)
        assert isinstance(got[-1], Job)

    with_rig(check)
