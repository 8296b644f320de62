"""Signals that come while something must not be left half done, and those that do what Ctrl-C does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from mlserve.cli import ending, loops
from mlserve.cli.exits import EXIT_INTERRUPTED

ALL = (signal.SIGINT, *ending.LIKE_INTERRUPT)


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ending, "_came", [])
    before = {number: signal.getsignal(number) for number in ALL}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ending.obey_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ALL)
def test_what_is_held_is_interrupted_or_the_signal_is_lost(number: signal.Signals) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  # where it comes is the point
        with ending.held():
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append("held")
        done.append("too late")
    assert done == ["held"]
    assert ending.exit_code(EXIT_INTERRUPTED) == 128 + number
    assert ending.exit_code(0) == 0, "it had done all by then"


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_is_heard_or_keeps_another_from_being_heard(ignored: signal.Signals) -> None:
    """``nohup``, and the background jobs of a script's shell."""
    signal.signal(ignored, signal.SIG_IGN)
    ending.obey_signals()
    signal.raise_signal(ignored)
    with ending.held():
        signal.raise_signal(ignored)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert ending.cause() == "SIGTERM"


def test_a_second_sigterm_interrupts_the_closing() -> None:
    """``timeout`` signals its child, and then the child's group."""
    closed = []

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(60)
        finally:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0)
            closed.append("closed")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(work())
    assert closed == ["closed"]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("heard", [True, False])
def test_an_interruption_cancels_what_the_cleanup_needs(*, fast: bool, heard: bool) -> None:
    if not heard:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    closed = []

    async def work() -> None:
        helper = asyncio.create_task(asyncio.sleep(0.05))
        try:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(60)
        finally:
            await helper
            closed.append("closed")

    with pytest.raises(KeyboardInterrupt):
        loops.run_loop(work(), fast=fast)
    assert closed == ["closed"]


def test_an_interruption_at_the_very_end_is_lost() -> None:
    async def work() -> str:
        signal.raise_signal(signal.SIGTERM)
        return "done"

    with pytest.raises(KeyboardInterrupt):
        loops.run_loop(work())
