"""An async handler; each batch sees the same event loop. The body "stream" gets an async generator."""

import asyncio


class Awaits:
    async def initialize(self, context):
        self.loop = asyncio.get_running_loop()

    async def handle(self, data, context):
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is self.loop
        return [self.pieces() if row["body"] == b"stream" else row["body"] for row in data]

    async def pieces(self):
        for word in ("one", "two"):
            await asyncio.sleep(0)
            yield word
