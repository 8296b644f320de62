"""Running an installer ends when it ends, whatever it has started and left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mlserve.archive.installers import InstallFailed, run

LEAVES_A_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session={apart})
print("Installing", child.pid, flush=True)
sys.exit({status})
"""


def ran(tmp_path: Path, *, apart: bool, status: int = 0) -> tuple[int, float]:
    """The child that a command left behind, and how long it took until that was over."""
    said: list[str] = []
    code = LEAVES_A_CHILD.format(apart=apart, status=status)
    began = time.monotonic()
    with (tmp_path / "lock").open("w") as lock:
        try:
            command = [sys.executable, "-c", code]
            run(command, cwd=tmp_path, say=said.append, stop=threading.Event(), hold=lock.fileno())
        finally:
            (child,) = (int(line.split()[1]) for line in said)
            if apart:
                os.kill(child, signal.SIGKILL)
    return child, time.monotonic() - began


def test_a_child_with_a_session_of_its_own_does_not_hold_the_build_up(tmp_path: Path) -> None:
    assert ran(tmp_path, apart=True)[1] < 30


def test_a_child_that_the_installer_left_is_ended_with_it(tmp_path: Path) -> None:
    child, seconds = ran(tmp_path, apart=False)
    assert seconds < 30
    deadline = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_exit_status_is_not_lost_with_a_child_left_behind(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="Installing"):
        ran(tmp_path, apart=True, status=3)


def alive(pid: int) -> bool:
    """Whether the process still runs; one that has ended may wait for its new parent."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
