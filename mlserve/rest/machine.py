"""What the machine is doing: CPU and memory by psutil, GPUs by NVML where there is one.

The readings may block for some milliseconds per GPU, so the metrics app takes them in a thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from mlserve.gpus import GpuReading, read_gpus


@dataclass(frozen=True)
class MachineReading:
    """Machine and server process now; shares are 0 to 1, sizes are in bytes, times in seconds."""

    cpu_utilization: float
    memory_used: int
    memory_available: int
    memory_total: int
    memory_percent: float  # 0 to 100, of what is not available
    disk_used: int  # of the root file system
    disk_free: int
    disk_percent: float  # 0 to 100, as df shows it
    process_cpu_seconds: float
    process_memory: int
    process_open_files: int
    process_start_time: float
    gpus: tuple[GpuReading, ...]


class Machine:
    """Reads the machine. The CPU share is that since the reading before."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._started = self._process.create_time()
        psutil.cpu_percent(None)  # the first call has nothing to compare with and returns 0

    def read(self) -> MachineReading:
        """Take all readings."""
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage("/")
        with self._process.oneshot():
            cpu = self._process.cpu_times()
            return MachineReading(
                cpu_utilization=psutil.cpu_percent(None) / 100,
                memory_used=memory.used,
                memory_available=memory.available,
                memory_total=memory.total,
                memory_percent=memory.percent,
                disk_used=disk.used,
                disk_free=disk.free,
                disk_percent=disk.percent,
                process_cpu_seconds=cpu.user + cpu.system,
                process_memory=self._process.memory_info().rss,
                process_open_files=self._process.num_fds(),
                process_start_time=self._started,
                gpus=read_gpus(),
            )
