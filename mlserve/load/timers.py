"""A timer of an event loop that is exact to some ten microseconds.

The loops' own (``call_at`` of asyncio and of uvloop) round up to whole milliseconds, which would be a third of what a
fast model's answer takes, and be counted as its latency. Linux has timers that are files; Python has a name for them
from 3.13 on, before that libc is called. Elsewhere the loop's timer must do: a run tells how late it sent.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable

_MONOTONIC, _NONBLOCK, _CLOEXEC = 1, 0o4000, 0o2000000  # of linux/timerfd.h


class _Spec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class LoopTimer:
    """Calls ``callback`` once for each :meth:`arm`, from the running loop, to the millisecond."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, seconds: float) -> None:
        """Fire after ``seconds``, soon if they are not above 0; an earlier order is replaced."""
        self.close()
        self._handle = self._loop.call_later(max(0.0, seconds), self._callback)

    def close(self) -> None:
        """Never fire again."""
        if self._handle is not None:
            self._handle.cancel()


class FileTimer:
    """The same, to some ten microseconds."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._callback = callback
        self._file = self._libc.timerfd_create(_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "no timer to be had")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._file, self._fired)

    def arm(self, seconds: float) -> None:
        """Fire after ``seconds``, soon if they are not above 0; an earlier order is replaced."""
        nanoseconds = max(1, int(seconds * 1e9))  # 0 would switch it off
        spec = _Spec(0, 0, nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)
        if self._libc.timerfd_settime(self._file, 0, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "the timer cannot be set")

    def close(self) -> None:
        """Never fire again."""
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _fired(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # it was set anew in between
            return
        self._callback()


Timer = FileTimer if sys.platform == "linux" else LoopTimer
