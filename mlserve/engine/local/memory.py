"""How much memory there is left, and what a process has of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from mlserve.engine.local.devices import cgroup_directories

_LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def available_memory(cgroup_root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that can be had without swapping: the machine's, or what the cgroup's limits leave where that is less.

    A cgroup's clean file pages count as free, as they do in the kernel's own estimate for the machine.
    """
    available = int(psutil.virtual_memory().available)
    for directory in cgroup_directories("memory", cgroup_root, membership):
        left = _left(directory)
        if left is not None:
            available = min(available, left)
    return max(0, available)


def memory_limit(cgroup_root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that there are, used or not: the machine's, or the least of its cgroups' limits where that is less."""
    most = int(psutil.virtual_memory().total)
    for directory in cgroup_directories("memory", cgroup_root, membership):
        for limit, _ in _LIMITS:
            with contextlib.suppress(OSError, ValueError):  # a limit that there is not, or "max"
                most = min(most, int((directory / limit).read_text()))
    return most


def _left(directory: Path) -> int | None:
    """Bytes below the limit of one cgroup; None where it has none."""
    for limit, usage in _LIMITS:
        try:
            text = (directory / limit).read_text().strip()
            if text == "max":
                return None
            used = int((directory / usage).read_text())
            for line in (directory / "memory.stat").read_text().splitlines():
                if line.startswith("inactive_file "):
                    used -= int(line.split()[1])
            return int(text) - used
        except (OSError, ValueError):
            continue
    return None


def process_memory(pid: int) -> tuple[int, int]:
    """(resident, proportional) bytes of a process: the second shares pages out among those that map them.

    Reading it takes 18 ms for a process that has torch loaded, so not on the event loop. Zeros if it is gone.
    """
    sizes = {}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split()[:2]
            sizes[name] = int(value) << 10
    except (OSError, ValueError):
        return 0, 0
    return sizes.get("Rss:", 0), sizes.get("Pss:", 0)
