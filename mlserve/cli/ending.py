"""Ending a command in order: SIGTERM (``timeout``, a pod that is deleted) and SIGHUP (a closed terminal) do what Ctrl-C
does, after which everything that is open is closed.

The servers, workers and installers that a command has started lead sessions of their own, where no signal that ends the
command reaches them. Ctrl-C is the way because everything knows it: ``mlserve.cli.loops`` cancels the main task, where
an exception of another handler would end in whichever callback was running, and be lost there.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from mlserve.cli.exits import EXIT_INTERRUPTED

LIKE_INTERRUPT = (signal.SIGTERM, signal.SIGHUP)
_came: list[int] = []  # the first of these
instead: list[Callable[[int, FrameType | None], object]] = []  # what Ctrl-C does: the last of these, if any


def obey_signals() -> None:
    """From now on. What is ignored stays so, as ``nohup`` has it."""
    for number in LIKE_INTERRUPT:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, _: FrameType | None) -> None:
    for each in LIKE_INTERRUPT:  # ``timeout`` signals its child, and then its child's group
        signal.signal(each, signal.SIG_IGN)
    _came.append(number)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a script's shell has it so in its background jobs
        signal.signal(signal.SIGINT, instead[-1] if instead else signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


def exit_code(code: int) -> int:
    """The exit code that says which signal it was, of one that says it was interrupted; any other stays."""
    return 128 + _came[0] if _came and code == EXIT_INTERRUPTED else code


def cause() -> str:
    """What has interrupted the command, for a message."""
    return signal.Signals(_came[0]).name if _came else "Ctrl-C"


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Signals wait for the end of the block: for what must not be left half done."""
    if threading.current_thread() is not threading.main_thread():  # they come to the main thread
        yield
        return
    waiting: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *LIKE_INTERRUPT)}
    before = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for came in waiting[:1]:
            signal.raise_signal(came)
