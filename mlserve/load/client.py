"""The client that a target needs, opened when it is known which: gRPC is imported for those that speak it."""

from __future__ import annotations

import asyncio

from mlserve.load.slots import TIMEOUT, Client, Done, Slot
from mlserve.load.target import Target


async def open_client(target: Target, done: Done) -> Client:
    """A client of the target's protocol. Raises :class:`ServeError` where its address or its certificates are wrong."""
    if target.is_grpc:
        from mlserve.load.grpc_client import GrpcClient

        return GrpcClient(target, done)
    from mlserve.load.http_client import open_http

    return await open_http(target, done)


async def ask_once(target: Target, number: int = 0) -> tuple[str, str]:
    """Send one payload and wait for its answer: (kind of error or "", what it said)."""
    answer: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    def done(slot: Slot, kind: str, _first: float, _end: float, _size: int, _pieces: bool) -> None:
        if not answer.done():
            answer.set_result((kind, slot.detail))

    client = await open_client(target, done)
    slot = client.slot()
    try:
        slot.send(number)
        return await asyncio.wait_for(answer, target.timeout)
    except asyncio.TimeoutError:
        return TIMEOUT, f"no answer within {target.timeout:g} s"
    finally:
        slot.close()
        await client.close()
