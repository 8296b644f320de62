"""Why a worker ended, in words that tell what to do about it.

The words go to the log, to ``describe`` and into the error of the requests that were being computed; the slug counts
restarts in the metrics. The kernel's own counters decide whether a SIGKILL was its out-of-memory killer.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mlserve.engine.local.devices import cgroup_directories
from mlserve.wire.payload import EXIT_DEVICE_LOST, EXIT_LOAD_FAILED, EXIT_PROTOCOL_ERROR, SAYS

_LOAD_FAILED = ("load_failed", "could not load the model (exit code 3)")
_SAID = {
    EXIT_PROTOCOL_ERROR: ("protocol_error", "got a frame it could not read (exit code 4)"),
    EXIT_DEVICE_LOST: ("device_error", "its device failed for good (exit code 5)"),
}


REASONS = (
    "exit",
    "signal",
    "killed",
    "out_of_memory",
    "load_failed",
    "protocol_error",
    "device_error",
    "startup_timeout",
    "response_timeout",
    "heartbeat_lost",
    "connection_lost",
    "spawn_failed",
)


class Ending(NamedTuple):
    """One death: ``slug`` for counting, ``text`` for people, ``detail`` (a traceback or log lines) for operators."""

    slug: str
    text: str
    detail: str = ""

    @property
    def killed(self) -> bool:
        """Out of memory, or by SIGKILL: mostly the kernel's, for the same reason."""
        return self.slug in ("killed", "out_of_memory")


def explain(code: int, *, loading: bool = False, lines: Iterable[str] = (), oom_kills: int | None = None) -> Ending:
    """What a process's exit status says; negative is the number of the signal that ended it.

    A handler may end the process with any code (``os._exit(3)``), so a code means what the worker means by it only
    while the worker would say it: 3 while it is ``loading``, 4 and 5 where one of its ``lines`` gives that reason.
    ``oom_kills`` is how far the kernel's out-of-memory counter moved in the worker's life, None where nobody can tell.
    """
    if code == -signal.SIGKILL or code == 128 + signal.SIGKILL:
        if oom_kills is None:
            return Ending("killed", "was killed by SIGKILL (probably out of memory)")
        if oom_kills > 0:
            return Ending("out_of_memory", "was killed by the kernel: out of memory")
        return Ending("killed", "was killed by SIGKILL (not by the kernel: its out-of-memory counter did not move)")
    if code < 0:
        return Ending("signal", f"was killed by {signal_name(-code)}")
    if code == 0:
        return Ending("exit", "ended by itself (exit code 0), though nobody asked it to")
    if code == EXIT_LOAD_FAILED and loading:
        return Ending(*_LOAD_FAILED)
    if code in _SAID and any(line.startswith(SAYS[code]) for line in lines):
        return Ending(*_SAID[code])
    return Ending("exit", f"exited with code {code}")


def signal_name(number: int) -> str:
    """``SIGSEGV`` rather than 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def oom_kill_count(
    cgroup_root: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
    vmstat: Path = Path("/proc/vmstat"),
) -> int | None:
    """How often the kernel has killed for memory, in our cgroups and on the host; None if it does not say."""
    files = [d / name for d in cgroup_directories("memory", cgroup_root, membership) for name in _COUNTERS]
    counts = [count for count in map(_counter, [*files, vmstat]) if count is not None]
    return sum(counts) if counts else None


_COUNTERS = ("memory.events", "memory.oom_control")


def _counter(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return None
