"""Calls that a task serves: what ends them, and what the client and the access log are told then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.http2 import Client, framed

from mlserve import errors
from mlserve.protocols.request_ids import RequestIds
from mlserve.protocols.torchserve import HttpOptions
from mlserve.rpc import frames
from mlserve.rpc.calls import Call, Calls
from mlserve.rpc.codes import Code
from mlserve.rpc.frames import Error
from mlserve.rpc.generated import inference_pb2 as pb
from mlserve.rpc.statuses import Statuses

SERVICE = pb.DESCRIPTOR.services_by_name["InferenceAPIsService"]
PREFIX = f"/{SERVICE.full_name}/"
REQUEST = framed(pb.PredictionsRequest(model_name="m").SerializeToString())
PIECE = pb.PredictionResponse(prediction=b"p" * 10_000)


class Access:
    """Notes the status of each call."""

    enabled = True

    def __init__(self) -> None:
        self.codes: list[int] = []

    def origin(self, client: str, method: str, path: str) -> str:
        return path

    def note(self, origin: str, status: int, *_: Any) -> None:
        self.codes.append(status)


class Servicer:
    """Does with a call what ``behaviour`` does."""

    def __init__(self, behaviour: Callable[[], Any]) -> None:
        self.behaviour = behaviour
        self.ended = False
        self.seen: list[str] = []

    async def ping(self, request: Any, call: Call) -> Any:
        return pb.TorchServeHealthResponse(health="x")

    async def predictions(self, request: Any, call: Call) -> Any:
        try:
            return await self.behaviour()
        finally:
            self.ended = True

    async def stream_predictions(self, request: Any, call: Call) -> AsyncIterator[Any]:
        try:
            while True:
                yield PIECE
                self.seen.append("sent")
        finally:
            self.ended = True

    async def stream_predictions2(self, requests: Any, call: Call) -> AsyncIterator[Any]:
        async for request in requests:
            self.seen.append(request.model_name)
            yield pb.PredictionResponse(prediction=request.model_name.encode())


async def forever() -> Any:
    await asyncio.Event().wait()


async def refused() -> Any:
    raise errors.ModelNotFound("no such")


async def broken() -> Any:
    raise RuntimeError("a fault")


class Played:
    """A client, and the server's side of its calls. Needs a running event loop."""

    def __init__(self, behaviour: Callable[[], Any] = forever) -> None:
        self.servicer = Servicer(behaviour)
        self.access: Any = Access()
        calls = Calls("inference", Statuses(HttpOptions()).inference, RequestIds(), None, self.access)
        self.client = Client(calls.methods(SERVICE, self.servicer))

    def call(self, name: str, data: bytes = REQUEST, end: bool = True, **headers: str) -> int:
        number = self.client.begin(__path=PREFIX + name, **headers)
        self.client.data(number, data, end)
        return number

    async def ended(self) -> None:
        """Until the access log has a line."""
        for _ in range(3000):
            if self.access.codes:
                return
            await asyncio.sleep(0.01)
        pytest.fail("the call did not end")


def test_a_deadline_ends_the_call_and_what_serves_it() -> None:
    async def play() -> None:
        played = Played()
        number = played.call("Predictions", grpc_timeout="20m")
        await played.ended()
        assert played.client.outcome(number)[0]["grpc-status"] == str(int(Code.DEADLINE_EXCEEDED))
        assert played.servicer.ended
        assert played.access.codes == [Code.DEADLINE_EXCEEDED]

    asyncio.run(play())


@pytest.mark.parametrize("leave", ["reset", "lost"])
def test_what_serves_a_call_ends_when_its_client_goes(leave: str) -> None:
    async def play() -> None:
        played = Played()
        number = played.call("Predictions")
        await asyncio.sleep(0)
        if leave == "reset":
            played.client.send(frames.reset(number, Error.CANCEL))
        else:
            played.client.connection.connection_lost(None)
        await played.ended()
        assert played.servicer.ended
        assert played.access.codes == [Code.CANCELLED]

    asyncio.run(play())


@pytest.mark.parametrize(("behaviour", "code"), [(refused, Code.NOT_FOUND), (broken, Code.INTERNAL)])
def test_a_failure_is_a_status(behaviour: Callable[[], Any], code: Code) -> None:
    async def play() -> None:
        played = Played(behaviour)
        number = played.call("Predictions")
        await played.ended()
        fields, data = played.client.outcome(number)
        assert (fields["grpc-status"], data) == (str(int(code)), b"")
        assert "fault" not in fields["grpc-message"]
        assert played.access.codes == [code]

    asyncio.run(play())


def test_a_message_that_cannot_be_read_fails_its_call() -> None:
    async def play() -> None:
        for name in ("Predictions", "StreamPredictions2"):
            played = Played()
            number = played.call(name, framed(b"\xff\xff"))
            await played.ended()
            assert played.client.outcome(number)[0]["grpc-status"] == str(int(Code.INTERNAL))

    asyncio.run(play())


def test_a_stream_waits_for_a_client_that_does_not_make_room() -> None:
    async def play() -> None:
        played = Played()
        number = played.call("StreamPredictions")
        for _ in range(100):
            await asyncio.sleep(0)
        sent = len(played.servicer.seen)
        assert 6 <= sent < 20, "64 KiB are let out, and as many may wait"
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(played.servicer.seen) == sent
        played.client.send(frames.window_update(0, 1 << 20) + frames.window_update(number, 1 << 20))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(played.servicer.seen) > 2 * sent
        played.client.send(frames.reset(number, Error.CANCEL))
        await played.ended()
        assert played.servicer.ended

    asyncio.run(play())


def test_requests_of_a_stream_are_answered_as_they_come() -> None:
    async def play() -> None:
        played = Played()
        number = played.call("StreamPredictions2", end=False)
        for _ in range(10):
            await asyncio.sleep(0)
        assert played.client.outcome(number)[1] == framed(pb.PredictionResponse(prediction=b"m").SerializeToString())
        played.client.data(number, REQUEST + REQUEST)
        await played.ended()
        assert played.servicer.seen == ["m"] * 3
        assert played.access.codes == [Code.OK]

    asyncio.run(play())


def test_a_deadline_also_ends_a_call_whose_answer_nobody_takes() -> None:
    async def play() -> None:
        played = Played()
        number = played.call("StreamPredictions", grpc_timeout="20m")
        await played.ended()
        assert played.client.last() == (frames.RST_STREAM, Error.CANCEL)
        assert number not in played.client.connection.streams
        assert played.access.codes == [Code.DEADLINE_EXCEEDED]

    asyncio.run(play())


@pytest.mark.parametrize("value", ["abc", "1", "-1S", "123456789S", "1 S"])
def test_a_deadline_that_cannot_be_read_is_not_taken_for_none(value: str) -> None:
    async def play() -> None:
        played = Played()
        number = played.call("Predictions", grpc_timeout=value)
        fields = played.client.outcome(number)[0]
        assert (fields["grpc-status"], fields["grpc-message"]) == ("13", "Malformed grpc-timeout")
        assert not played.client.connection.streams

    asyncio.run(play())
