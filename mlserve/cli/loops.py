"""Event loops that an interruption ends in order.

``asyncio.run`` cancels the main task alone, whose cleanup needs the others, only from Python 3.11 on, and not where
SIGINT is ignored, as a script's shell has it in its background jobs: else the interruption ends in whatever runs, and
all tasks are cancelled together. Workers were left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from mlserve.cli import ending

T = TypeVar("T")


def run_loop(main: Coroutine[Any, Any, T], *, fast: bool = False) -> T:
    """``asyncio.run``; with ``fast``, on the loop that is quicker over sockets, where there is one.

    Raises KeyboardInterrupt when it was interrupted, after the main task has cleaned up.
    """
    interrupted: list[bool] = []

    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None
        with on_interrupt(task.cancel, interrupted):
            return await main

    runner: Callable[[Coroutine[Any, Any, T]], T] = asyncio.run
    if fast and sys.platform != "win32":
        import uvloop

        runner = uvloop.run
    try:
        result = runner(watched())
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    if interrupted:  # there was nothing left to cancel
        raise KeyboardInterrupt
    return result


@contextlib.contextmanager
def on_interrupt(callback: Callable[[], object], interrupted: list[bool] | None = None) -> Iterator[None]:
    """An interruption calls it in the running loop, and is noted; a second one is what it is.

    Not with ``add_signal_handler``: uvloop 0.23 calls that twice for the SIGINT that a SIGTERM's handler raises while
    the loop waits, once for the byte in its pipe and once for the handler's call.
    """
    if threading.current_thread() is not threading.main_thread():  # signals come to the main thread
        yield
        return
    loop, noted = asyncio.get_running_loop(), [] if interrupted is None else interrupted

    def interrupt(*_: object) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(True)
        loop.call_soon_threadsafe(callback)

    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    ending.instead.append(interrupt)
    try:
        yield
    finally:
        ending.instead.remove(interrupt)
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, before)
