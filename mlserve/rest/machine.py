"""What the machine is doing: CPU and memory by psutil, GPUs by NVML where the driver and ``nvidia-ml-py`` are there.

The readings may block for some milliseconds per GPU, so the metrics app takes them in a thread.
"""

from __future__ import annotations

import functools
import importlib
import logging
from dataclasses import dataclass
from typing import Any

import psutil

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GpuReading:
    """One GPU now; ``gpu`` is the physical id, shares are 0 to 1, sizes are in bytes."""

    gpu: int
    name: str
    utilization: float
    memory_utilization: float  # share of time in which memory was read or written
    memory_used: int
    memory_total: int


@dataclass(frozen=True)
class MachineReading:
    """Machine and server process now; shares are 0 to 1, sizes are in bytes, times in seconds."""

    cpu_utilization: float
    memory_used: int
    memory_available: int
    memory_total: int
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
        with self._process.oneshot():
            cpu = self._process.cpu_times()
            return MachineReading(
                cpu_utilization=psutil.cpu_percent(None) / 100,
                memory_used=memory.used,
                memory_available=memory.available,
                memory_total=memory.total,
                process_cpu_seconds=cpu.user + cpu.system,
                process_memory=self._process.memory_info().rss,
                process_open_files=self._process.num_fds(),
                process_start_time=self._started,
                gpus=read_gpus(),
            )


@functools.cache
def _nvml() -> Any:
    """The initialised NVML module, or None without a driver or without ``nvidia-ml-py``."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception as error:  # its error classes are known only once it is imported
        log.debug("no GPU readings: %s", error)
        return None
    return nvml


def read_gpus() -> tuple[GpuReading, ...]:
    """All GPUs of the machine; none where there is no NVML. A GPU that cannot be read now is left out."""
    nvml = _nvml()
    if nvml is None:
        return ()
    readings = []
    for gpu in range(nvml.nvmlDeviceGetCount()):
        try:
            readings.append(_read_gpu(nvml, gpu))
        except nvml.NVMLError as error:
            _warn_gpu(gpu, str(error))
    return tuple(readings)


def _read_gpu(nvml: Any, gpu: int) -> GpuReading:
    handle = nvml.nvmlDeviceGetHandleByIndex(gpu)
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = nvml.nvmlDeviceGetName(handle)
    return GpuReading(
        gpu=gpu,
        name=name.decode() if isinstance(name, bytes) else str(name),
        utilization=rates.gpu / 100,
        memory_utilization=rates.memory / 100,
        memory_used=int(memory.used),
        memory_total=int(memory.total),
    )


@functools.cache
def _warn_gpu(gpu: int, reason: str) -> None:
    """Say it once per cause: a GPU in MIG mode, for one, refuses its utilisation at every scrape."""
    log.warning("GPU %d cannot be read: %s", gpu, reason)


def gpu_usage(gpu: int) -> str:
    """TorchServe's one-line text about a physical GPU, ``N/A`` where it cannot be read."""
    nvml = _nvml()
    if nvml is None:
        return "N/A"
    try:
        reading = _read_gpu(nvml, gpu)
    except nvml.NVMLError as error:
        _warn_gpu(gpu, str(error))
        return "N/A"
    return (
        f"gpuId::{gpu} utilization.gpu::{reading.utilization * 100:.0f} % "
        f"utilization.memory::{reading.memory_utilization * 100:.0f} % memory.used::{reading.memory_used >> 20} MiB"
    )
