"""What a spare worker should have imported, and which workers it can become. Pure decisions."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePath

from mlserve.core.model import ModelSpec
from mlserve.engine.local.launch import DEVICES, THREADS

_LATE = (*THREADS, *DEVICES)
_ROOTS = ("torch", "onnxruntime")  # models of one group have one of these in common, the first that they have
_TORCH = (".pt", ".pth", ".pt2", ".bin", ".safetensors", ".ts", ".torchscript")


def recipe(models: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The modules to import: what all models have in common that import torch, or else ONNX Runtime."""
    lists = [list(modules) for modules in models]
    for root in _ROOTS:
        group = [modules for modules in lists if root in modules]
        if group:
            common = set(group[0]).intersection(*group)
            return tuple(name for name in group[0] if name in common)
    return ()


def packages(modules: Iterable[str]) -> set[str]:
    """Their packages, less our own: those are small, and every worker has some."""
    return {name.partition(".")[0] for name in modules} - {"mlserve"}


def likely_packages(spec: ModelSpec) -> set[str]:
    """What a model that has never been loaded will import, as far as its files tell: torch, or nothing."""
    model = spec.manifest.get("model")
    files = [str(model.get(key) or "") for key in ("serializedFile", "modelFile")] if isinstance(model, Mapping) else []
    return {"torch", "numpy"} if any(PurePath(name).suffix in _TORCH for name in files) else set()


def spare_environment(environment: Mapping[str, str], cpus: float) -> dict[str, str]:
    """``environment`` of a worker without what can be set late: no GPU, and pools of one thread.

    Not those of torch: it is told the most that a worker can have, and shows by that how many it really takes.
    """
    fixed = {name: value for name, value in environment.items() if name not in DEVICES}
    fixed["CUDA_VISIBLE_DEVICES"] = ""
    if _uniform(environment):
        fixed.update(dict.fromkeys(THREADS, "1"))
        fixed.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(max(1, int(cpus)))))
    return fixed


def late_changes(started_with: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str | None] | None:
    """What has to be set late to make one environment the other; None where that cannot be done."""
    changed = {
        name: wanted.get(name) for name in {*started_with, *wanted} if started_with.get(name) != wanted.get(name)
    }
    if not changed.keys() <= set(_LATE):
        return None
    if not changed.keys().isdisjoint(THREADS) and not _uniform(wanted):
        return None
    return changed


def _uniform(environment: Mapping[str, str]) -> bool:
    """Whether all thread pools get the same number: there is one call to tell them."""
    values = {environment.get(name, "") for name in THREADS}
    return len(values) == 1 and values.pop().isdecimal()


def shadowed(model_dir: str, names: Collection[str]) -> bool:
    """Whether the model brings a module of its own of one of these names, which a spare has from elsewhere."""
    try:
        found = {entry.partition(".")[0] for entry in os.listdir(model_dir)} if model_dir else set()
    except OSError:
        return True
    return not found.isdisjoint(names)
