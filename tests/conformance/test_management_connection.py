"""What happens to the management API below and around its requests: broken HTTP, huge headers, clients that leave."""

from __future__ import annotations

import asyncio
import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from mlserve.core.model import ModelKey
from mlserve.errors import WorkerStartError
from mlserve.rest.json_errors import JsonErrorsRunner
from mlserve.rest.management import build_management_app
from mlserve.settings import Settings


class SlowService:
    """Registers when it is told to, and can fail then."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.failure: Exception | None = None
        self.registered = asyncio.Event()

    async def register(self, url: str, overrides: dict[str, Any], **options: Any) -> Any:
        self.asked.set()
        await self.go_on.wait()
        self.registered.set()
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(key=ModelKey("m", "1.0"), workers=1, done=True)

    def list_models(self) -> list[tuple[str, str]]:
        return []


async def start(service: Any) -> tuple[JsonErrorsRunner, int]:
    runner = JsonErrorsRunner(
        build_management_app(service, Settings()),
        handler_cancellation=True,
        access_log=None,
        max_line_size=4096,
        max_field_size=4096,
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, runner.addresses[0][1]


async def exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer


BROKEN = [
    b"nonsense\r\n\r\n",
    b"GET /models HTTP/1.1\r\nHost x\r\n\r\n",
    b"GET /models HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /models?x=" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /models HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 5000 + b"\r\n\r\n",
    b"GET /mod\x01els HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /models HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    b"POST /models HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]


@pytest.mark.parametrize("request_bytes", BROKEN, ids=range(len(BROKEN)))
def test_broken_http_is_answered_with_aiohttps_own_page(request_bytes: bytes) -> None:
    async def run() -> tuple[bytes, bytes]:
        runner, port = await start(SlowService())
        try:
            answer = await exchange(port, request_bytes)
            return answer, await exchange(port, b"GET /models HTTP/1.0\r\n\r\n")
        finally:
            await runner.cleanup()

    answer, after = asyncio.run(run())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4") or head.startswith(b"HTTP/1.0 4"), head
    assert b"content-type: application/json" in head.lower()
    document = json.loads(body)
    assert 400 <= document["code"] < 500
    assert document["type"] == "BadRequestException"
    assert b" 200 OK" in after


@pytest.mark.parametrize("failure", [None, WorkerStartError("Failed to start workers")])
def test_client_that_leaves_stops_a_registration_half_way(
    failure: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        service = SlowService()
        service.failure = failure
        runner, port = await start(service)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /models?url=a.mar HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.wait_for(service.asked.wait(), 10)
            writer.close()
            await writer.wait_closed()
            while runner.server is not None and runner.server.connections:
                await asyncio.sleep(0.001)  # until the server has seen that the client is gone
            service.go_on.set()
            await asyncio.wait_for(service.registered.wait(), 10)
            await asyncio.sleep(0)
        finally:
            await runner.cleanup()

    with caplog.at_level(logging.CRITICAL if failure is None else logging.ERROR, "mlserve"):
        asyncio.run(run())
    assert ("registering a.mar failed, with nobody waiting for it" in caplog.text) is (failure is not None)
