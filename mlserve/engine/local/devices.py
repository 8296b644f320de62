"""Which devices a worker gets: GPUs found through NVML, handed out in turn, and the CPUs this server may use.

NVML numbers GPUs by PCI bus, so workers are started with ``CUDA_DEVICE_ORDER=PCI_BUS_ID``: the id that is shown is the
id that is pinned.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlserve.core.model import ModelSpec
from mlserve.gpus import gpu_uuids

log = logging.getLogger(__name__)


def discover_gpus(environ: Mapping[str, str] | None = None) -> list[int]:
    """The physical ids of the GPUs this server may use, in order; empty where there are none.

    A ``CUDA_VISIBLE_DEVICES`` of the server's own (ids or GPU UUIDs) limits the list and gives its order.
    """
    visible = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    return visible_gpus(gpu_uuids(), visible)


def visible_gpus(uuids: Sequence[str], visible: str | None) -> list[int]:
    """The ids that ``visible``, in CUDA's syntax, leaves of the GPUs with these UUIDs.

    As in CUDA, an entry that names no GPU ends the list.
    """
    if visible is None:
        return list(range(len(uuids)))
    found: list[int] = []
    for entry in (entry.strip() for entry in visible.split(",")):
        matches = [
            i
            for i, uuid in enumerate(uuids)
            if entry == str(i) or (entry.startswith("GPU-") and uuid.startswith(entry))
        ]
        if len(matches) != 1 or matches[0] in found:
            if entry not in ("", "-1"):
                log.warning("CUDA_VISIBLE_DEVICES=%s: %r names no GPU; it and what follows is left out", visible, entry)
            break
        found += matches
    return found


class DeviceAllocator:
    """Hands out GPUs in turn: over all models together, or over a model's own ``device_ids``."""

    def __init__(self, gpu_ids: Sequence[int]) -> None:
        self.gpu_ids = tuple(gpu_ids)
        self._next = 0

    def for_model(self, spec: ModelSpec) -> ModelDevices:
        """The devices of one model version. Warns where ``device_ids`` or ``device_type`` cannot be met."""
        if spec.device_type == "cpu":
            return ModelDevices(self, None)
        if not self.gpu_ids:
            if spec.device_type == "gpu" or spec.device_ids:
                log.warning("Model %s asks for a GPU, but this server has none: it runs on the CPU", spec.key)
            return ModelDevices(self, None)
        unknown = [i for i in spec.device_ids if i not in self.gpu_ids]
        if unknown:
            log.warning(
                "Model %s: deviceIds %s is not used, because this server has no GPU %s (it has %s)",
                spec.key,
                list(spec.device_ids),
                ", ".join(map(str, unknown)),
                ", ".join(map(str, self.gpu_ids)),
            )
            return ModelDevices(self, ())
        return ModelDevices(self, spec.device_ids)

    def next(self) -> int:
        """The next GPU in turn over all models."""
        gpu_id = self.gpu_ids[self._next % len(self.gpu_ids)]
        self._next += 1
        return gpu_id


class ModelDevices:
    """The devices of each next worker of one model version."""

    def __init__(self, allocator: DeviceAllocator, own: Sequence[int] | None) -> None:
        self._allocator = allocator
        self._own = own
        self._next = 0

    def next(self, count: int = 1) -> tuple[int, ...]:
        """The physical ids of ``count`` GPUs for one more worker, none for the CPU. A worker keeps them over restarts.

        A worker of several processes takes them in a row from the model's own list, or else from all.
        """
        if self._own is None:
            return ()
        if not self._own and count == 1:
            return (self._allocator.next(),)
        ids = self._own or self._allocator.gpu_ids
        first, self._next = self._next, self._next + count
        return tuple(dict.fromkeys(ids[(first + step) % len(ids)] for step in range(count)))

    def most(self, count: int) -> int | None:
        """How many workers of ``count`` GPUs each there can be without two on one GPU; None where that is no limit."""
        if self._own is None or count == 1:
            return None
        return max(1, len(self._own or self._allocator.gpu_ids) // count)


def available_cpus(cgroup_root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """How many CPUs this process may use: the affinity mask, less where a cgroup's quota (v2 or v1) is smaller."""
    count = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    for directory in cgroup_directories("cpu", cgroup_root, membership):
        quota = _quota(directory)
        if quota:
            count = min(count, quota)
    return count


def cgroup_directories(controller: str, cgroup_root: Path, membership: Path) -> list[Path]:
    """The directories that hold this process's limits for ``controller``: its own cgroup and all above it."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _number, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroup_root / controllers if controllers else cgroup_root
        # In a container the path may be the host's, with only the container's own part of the tree mounted at the root.
        own = root / path.lstrip("/")
        found += [own, *(parent for parent in own.parents if parent == root or root in parent.parents)]
    return [directory for directory in found if directory.is_dir()]


def _quota(directory: Path) -> float:
    """CPUs that the quota in ``directory`` allows; 0 where it sets none."""
    try:
        if (directory / "cpu.max").exists():
            quota, period = (directory / "cpu.max").read_text().split()
        else:
            quota = (directory / "cpu.cfs_quota_us").read_text().strip()
            period = (directory / "cpu.cfs_period_us").read_text().strip()
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else 0.0
    except (OSError, ValueError):
        return 0.0
