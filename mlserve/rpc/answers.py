"""A request's answer, piece by piece, for calls that send one request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from mlserve.core.job import Job
from mlserve.core.messages import InferenceRequest, InferenceResponse
from mlserve.core.registry import VersionHandle
from mlserve.core.service import InferenceService
from mlserve.errors import ServeError
from mlserve.rpc.calls import Call


async def pieces(
    service: InferenceService, handle: VersionHandle, item: InferenceRequest, call: Call
) -> AsyncIterator[bytes]:
    """What the handler sends, then what it returns. Raises the job's failure; leaving early cancels the job."""
    async with aclosing(service.events(handle, item)) as events:  # type: ignore[type-var]  # a generator
        async for event in events:
            if not isinstance(event, Job):
                yield event.data
                continue
            call.job = event
            if not isinstance(event.result, InferenceResponse):
                raise event.result or ServeError("The request ended without a result")
            yield bytes(event.result.body)


async def whole(service: InferenceService, handle: VersionHandle, item: InferenceRequest, call: Call) -> bytes:
    """All pieces put together."""
    async with aclosing(pieces(service, handle, item, call)) as answer:  # type: ignore[type-var]  # a generator
        return b"".join([piece async for piece in answer])
