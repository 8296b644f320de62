"""``ts.metrics.process_memory_metric``: resident memory of processes."""

from __future__ import annotations

import logging
from typing import IO

import psutil

log = logging.getLogger(__name__)


def get_cpu_usage(pid: str | int) -> int:
    """Resident memory of a process in bytes, despite the name; 0 if there is none."""
    try:
        return int(psutil.Process(int(pid)).memory_info().rss)
    except psutil.Error as error:
        log.error("Process %s cannot be read: %s", pid, error)
        return 0


def check_process_mem_usage(stdin: IO[str]) -> None:
    """Log ``pid:bytes`` for each process of the comma list in the first line of ``stdin``."""
    for pid in stdin.readline().strip().split(","):
        if pid:
            log.info("%s:%d", pid, get_cpu_usage(pid))
