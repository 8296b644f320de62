"""``ts.metrics.system_metrics``: the machine as :class:`Metric` objects, for collectors that build on it.

The server measures the machine itself; this is for a ``system_metrics_cmd`` of a user's own.
"""

from __future__ import annotations

import logging
import types
from typing import Any

import psutil

from mlserve.compat.ts.metrics.metric import Metric
from mlserve.worker.metric_types import Dimension

system_metrics: list[Metric] = []
dimension = [Dimension("Level", "Host")]
_MB, _GB = 1 << 20, 1 << 30


def _add(name: str, value: float, unit: str) -> None:
    system_metrics.append(Metric(name, value, unit, dimension))


def cpu_utilization() -> None:
    """In percent."""
    _add("CPUUtilization", psutil.cpu_percent(), "percent")


def memory_used() -> None:
    """In megabytes."""
    _add("MemoryUsed", psutil.virtual_memory().used / _MB, "MB")


def memory_available() -> None:
    """In megabytes."""
    _add("MemoryAvailable", psutil.virtual_memory().available / _MB, "MB")


def memory_utilization() -> None:
    """In percent."""
    _add("MemoryUtilization", psutil.virtual_memory().percent, "percent")


def disk_used() -> None:
    """Of the root file system, in gigabytes."""
    _add("DiskUsage", psutil.disk_usage("/").used / _GB, "GB")


def disk_utilization() -> None:
    """Of the root file system, in percent."""
    _add("DiskUtilization", psutil.disk_usage("/").percent, "percent")


def disk_available() -> None:
    """Of the root file system, in gigabytes."""
    _add("DiskAvailable", psutil.disk_usage("/").free / _GB, "GB")


def collect_all(mod: Any, num_of_gpus: int = 0) -> None:
    """Call every function of ``mod`` that measures something, then log the metrics and an empty line."""
    for name in dir(mod):
        function = getattr(mod, name)
        if not isinstance(function, types.FunctionType) or name.startswith("_") or name == "collect_all":
            continue
        if name == "collect_gpu_metrics":
            function(num_of_gpus)
        else:
            function()
    for metric in system_metrics:
        logging.info("%s", metric)
    logging.info("")
