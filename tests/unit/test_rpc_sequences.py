"""A call of many requests: order per sequence, endings of every request, and limits, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.core_fakes import FakeClock, make_queue

from mlserve.core.job import CallbackJob, Job
from mlserve.core.messages import Chunk, InferenceRequest, InferenceResponse, Part
from mlserve.core.sequence import SequenceHeaders
from mlserve.errors import NoWorker, QueueFull, ServeError
from mlserve.rpc import sequences
from mlserve.rpc.codes import Code
from mlserve.rpc.generated.inference_pb2 import PredictionResponse, PredictionsRequest
from mlserve.rpc.statuses import Failure


class FakeService:
    """Keeps what is submitted until the test answers it."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.cancelled: list[Job] = []
        self.refusal: ServeError | None = None

    def submit(self, handle: Any, request: InferenceRequest, on_done: Any, on_chunk: Any) -> Job:
        if self.refusal is not None:
            raise self.refusal
        job = CallbackJob(request, on_done, on_chunk)
        job.queue = make_queue(FakeClock())
        self.jobs.append(job)
        return job

    def cancel(self, job: Job) -> None:
        if job.result is None:
            self.cancelled.append(job)
            job.finish(ServeError("cancelled"))

    def answer(self, index: int, text: str | None = None) -> None:
        job = self.jobs[index]
        job.finish(InferenceResponse((text or job.request.request_id).encode()))


class Conversation:
    """A stream whose client speaks when the test says so; ``said`` is what it has been told."""

    def __init__(self) -> None:
        self.service = FakeService()
        self.said: list[tuple[str, str]] = []
        self.requests: asyncio.Queue[PredictionsRequest | None] = asyncio.Queue()
        call: Any = SimpleNamespace(
            request_id="call", failures=lambda error, name, version: Failure(Code.INTERNAL, str(error), "R")
        )
        service: Any = self.service
        self.stream = sequences.SequenceStream(service, call, accept, SequenceHeaders())
        self.task = asyncio.ensure_future(self._listen())

    async def _incoming(self) -> AsyncIterator[PredictionsRequest]:
        while (request := await self.requests.get()) is not None:
            yield request

    async def _listen(self) -> None:
        async for one in self.stream.responses(self._incoming()):
            self.said.append((one.sequence_id, told(one)))

    async def ask(self, *texts: str) -> None:
        """``a:1`` is the request 1 of the sequence a."""
        for text in texts:
            name, _, value = text.partition(":")
            self.requests.put_nowait(
                PredictionsRequest(model_name="m", input={"data": value.encode()}, sequence_id=name)
            )
        await turns()


def told(response: PredictionResponse) -> str:
    return f"!{response.status.message}" if response.HasField("status") else response.prediction.decode()


def accept(request: PredictionsRequest, call: Any, request_id: str, sequence_id: str) -> tuple[Any, InferenceRequest]:
    parts = [Part(name, value) for name, value in request.input.items()]
    return None, InferenceRequest(request_id, parts, sequence_id=sequence_id)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def converse(script: Callable[[Conversation], Any]) -> Conversation:
    async def main() -> Conversation:
        talk = Conversation()
        await script(talk)
        await asyncio.wait_for(talk.task, 5)
        return talk

    return asyncio.run(main())


def test_answers_leave_in_the_order_of_each_sequences_requests() -> None:
    async def script(talk: Conversation) -> None:
        await talk.ask("a:1", "b:1", "a:2", "b:2")
        for index in (3, 2, 1, 0):
            talk.service.answer(index)
        talk.requests.put_nowait(None)

    said = converse(script).said
    assert said == [("b", "call-2"), ("b", "call-4"), ("a", "call-1"), ("a", "call-3")]


def test_pieces_of_a_later_request_wait_for_the_end_of_the_earlier_one() -> None:
    async def script(talk: Conversation) -> None:
        await talk.ask("a:1", "a:2")
        first, second = talk.service.jobs
        second.on_chunk(Chunk(b"2, piece"))
        first.on_chunk(Chunk(b"1, piece"))
        await turns()
        assert talk.said == [("a", "1, piece")]
        talk.service.answer(0, "1, end")
        talk.service.answer(1, "2, end")
        talk.requests.put_nowait(None)

    assert [text for _, text in converse(script).said] == ["1, piece", "1, end", "2, piece", "2, end"]


@pytest.mark.parametrize("error", [QueueFull("full"), NoWorker("none")])
def test_a_refused_request_is_answered_and_the_call_goes_on(error: ServeError) -> None:
    async def script(talk: Conversation) -> None:
        talk.service.refusal = error
        await talk.ask("a:1")
        talk.service.refusal = None
        await talk.ask("a:2")
        talk.service.answer(0)
        talk.requests.put_nowait(None)

    assert converse(script).said == [("a", f"!{error.message}"), ("a", "call-2")]


def test_a_failed_job_is_answered_in_its_turn() -> None:
    async def script(talk: Conversation) -> None:
        await talk.ask("a:1", "a:2")
        talk.service.jobs[1].finish(ServeError("broken"))
        talk.service.answer(0)
        talk.requests.put_nowait(None)

    assert [text for _, text in converse(script).said] == ["call-1", "!broken"]


def test_the_call_ends_only_when_all_are_answered() -> None:
    async def script(talk: Conversation) -> None:
        await talk.ask("a:1")
        talk.requests.put_nowait(None)
        await turns()
        assert not talk.task.done()
        talk.service.answer(0)

    assert converse(script).said == [("a", "call-1")]


def test_a_client_that_goes_away_leaves_no_request_behind() -> None:
    async def script(talk: Conversation) -> None:
        await talk.ask("a:1", "b:1")
        talk.task.cancel()
        await turns()
        assert len(talk.service.cancelled) == 2
        talk.task = asyncio.ensure_future(asyncio.sleep(0))

    converse(script)


def test_reading_stops_while_too_many_requests_are_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "WINDOW", 2)

    async def script(talk: Conversation) -> None:
        await talk.ask("a:1", "b:1", "c:1", "d:1")
        assert len(talk.service.jobs) == 2
        talk.service.answer(0)
        await turns()
        assert len(talk.service.jobs) == 3
        talk.service.answer(1)
        await turns()
        talk.service.answer(2)
        talk.service.answer(3)
        talk.requests.put_nowait(None)

    assert len(converse(script).said) == 4


def test_a_server_that_stops_reads_no_more_and_answers_what_it_has() -> None:
    async def script(talk: Conversation) -> None:
        await talk.ask("a:1")
        talk.stream.close()
        await talk.ask("a:2")
        assert not talk.task.done()
        talk.service.answer(0)

    assert converse(script).said == [("a", "call-1")]


def test_failures_do_not_pile_up_for_a_client_that_does_not_read() -> None:
    async def play() -> None:
        async def requests() -> AsyncIterator[PredictionsRequest]:
            for _ in range(10 * sequences.WINDOW):
                taken.append(None)
                yield PredictionsRequest()  # which has no sequence

        taken: list[None] = []
        call: Any = SimpleNamespace(request_id="c", failures=lambda *_: Failure(Code.INTERNAL, "no", "R"))
        service: Any = FakeService()
        stream = sequences.SequenceStream(service, call, accept, SequenceHeaders())
        told = stream.responses(requests())
        await anext(told)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(taken) <= 2 * sequences.WINDOW
        count = 1
        async for _response in told:
            count += 1
        assert count == 10 * sequences.WINDOW

    asyncio.run(play())
