"""For handlers that are coroutine functions and get their batches one by one all the same."""

from __future__ import annotations

from typing import Any


class Coroutines:
    """Runs what an ``async def handle`` returns, on one private event loop that lives as long as the thread."""

    def __init__(self) -> None:
        self._loop: Any = None

    def start(self) -> None:
        """Make the loop."""
        import asyncio  # 30 ms that handlers without coroutines do not pay

        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)

    def __call__(self, value: Any) -> Any:
        """``value``, or what it gives once it has been awaited."""
        if not hasattr(value, "__await__"):
            return value
        if self._loop is None:
            self.start()
        return self._loop.run_until_complete(value)
