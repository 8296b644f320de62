"""An async handler; each batch sees the same event loop."""

import asyncio


class Awaits:
    async def initialize(self, context):
        self.loop = asyncio.get_running_loop()

    async def handle(self, data, context):
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is self.loop
        return [row["body"] for row in data]
