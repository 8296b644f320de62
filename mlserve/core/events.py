"""A request as a stream of events, for doors that live in coroutines.

Not in ``service.py``, which is compiled: mypyc has no asynchronous generators.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from mlserve.core.job import Job
from mlserve.core.messages import Chunk, InferenceRequest

if TYPE_CHECKING:
    from mlserve.core.registry import VersionHandle
    from mlserve.core.service import InferenceService

STREAM_BACKLOG = 32 << 20  # bytes of a stream that may wait for its client; one that is further behind is given up


async def events(
    service: InferenceService, handle: VersionHandle, request: InferenceRequest
) -> AsyncIterator[Chunk | Job]:
    """See ``InferenceService.events``."""
    happened: asyncio.Queue[Chunk | Job] = asyncio.Queue()
    waiting = 0

    def on_chunk(job: Job, chunk: Chunk) -> None:
        nonlocal waiting
        waiting += len(chunk.data)
        happened.put_nowait(chunk)
        if waiting > STREAM_BACKLOG:
            service.cancel(job)

    job = service.submit(handle, request, happened.put_nowait, on_chunk)
    try:
        while True:
            event = await happened.get()
            if isinstance(event, Chunk):
                waiting -= len(event.data)
            yield event
            if event is job:
                return
    finally:
        service.cancel(job)  # does nothing to a job that has ended
