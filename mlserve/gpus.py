"""GPUs as NVML sees them: which there are, and what they are doing.

NVML comes with the driver and is read through ``nvidia-ml-py`` (the ``gpu`` extra), imported only when somebody asks;
without either there are simply no GPUs. It numbers them by PCI bus and needs no CUDA context, so looking costs no GPU
memory. A reading may block for some milliseconds: callers on the event loop take it in a thread.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl", "/proc/driver/nvidia")  # of Linux, WSL and Tegra


@dataclass(frozen=True)
class GpuReading:
    """One GPU now; ``gpu`` is the physical id, shares are 0 to 1, sizes are in bytes."""

    gpu: int
    name: str
    utilization: float
    memory_utilization: float  # share of time in which memory was read or written
    memory_used: int
    memory_total: int


@functools.cache
def _nvml() -> Any:
    """The initialised NVML module, or None without a driver or without ``nvidia-ml-py``."""
    if not any(map(os.path.exists, _DEVICES)):
        return None  # importing it to be told so takes 35 ms of each start
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception as error:  # its error classes are known only once it is imported
        log.debug("no GPU readings: %s", error)
        if os.path.exists(_DEVICES[0]):
            log.warning(
                "This machine has NVIDIA devices, but NVML cannot be used to find them, so models run on the CPU. "
                "Install the 'gpu' extra (pip install 'mlserve[gpu]') or name the GPUs (--gpus 0,1 or gpu.ids)"
            )
        return None
    return nvml


def gpu_uuids() -> list[str]:
    """The UUIDs of the machine's GPUs; an index is a physical id. Empty where there is no NVML."""
    nvml = _nvml()
    if nvml is None:
        return []
    handles = [nvml.nvmlDeviceGetHandleByIndex(gpu) for gpu in range(nvml.nvmlDeviceGetCount())]
    return [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]


def read_gpus() -> tuple[GpuReading, ...]:
    """All GPUs of the machine; none where there is no NVML. A GPU that cannot be read now is left out."""
    nvml = _nvml()
    if nvml is None:
        return ()
    readings = (read_gpu(gpu) for gpu in range(nvml.nvmlDeviceGetCount()))
    return tuple(reading for reading in readings if reading is not None)


def read_gpu(gpu: int) -> GpuReading | None:
    """One GPU by its physical id, or None where it cannot be read."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(gpu)
        rates = nvml.nvmlDeviceGetUtilizationRates(handle)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        name = _text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError as error:
        _warn(gpu, str(error))
        return None
    return GpuReading(gpu, name, rates.gpu / 100, rates.memory / 100, int(memory.used), int(memory.total))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@functools.cache
def _warn(gpu: int, reason: str) -> None:
    """Say it once per cause: a GPU in MIG mode, for one, refuses its utilisation at every scrape."""
    log.warning("GPU %d cannot be read: %s", gpu, reason)
