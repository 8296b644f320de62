"""An asynchronous handler: "0.2" is answered after so many seconds, "raise" fails, "stream" comes in pieces, "stuck"
blocks the loop, "spins" never ends, "exit" ends the process, "meet 3" waits until three have said so. Notes which
it was cancelled in."""

import asyncio
import sys
import time


class Waits:
    async def initialize(self, context):
        self.loop = asyncio.get_running_loop()
        self.cancelled = []
        self.meetings = {}

    async def handle(self, data, context):
        assert asyncio.get_running_loop() is self.loop, "one loop for everything"
        (row,) = data
        text = bytes(row["body"]).decode()
        context.metrics.add_counter("seen", 1)
        context.set_response_header(0, "asked", text)
        try:
            if text == "stream":
                return [self.pieces()]
            if text.startswith("meet"):
                return [await self.meet(text)]
            if text == "send":
                context.send_piece(0, "early ")
                await asyncio.sleep(0.01)
                return ["late"]
            if text == "cancelled":
                return [self.cancelled]
            if text == "raise":
                raise ValueError("a bad one")
            if text == "exit":
                sys.exit(7)
            if text == "stuck":
                time.sleep(60)
            await asyncio.sleep(3600 if text == "spins" else float(text))
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        return [f"{text} for {context.get_request_id(0)}"]

    async def meet(self, text):
        come, all_came = self.meetings.setdefault(text, ([], asyncio.Event()))
        come.append(text)
        if len(come) == int(text.split()[1]):
            all_came.set()
        await asyncio.wait_for(all_came.wait(), 10)
        return text

    async def pieces(self):
        for number in range(3):
            yield f"{number} "
            await asyncio.sleep(0.01)
