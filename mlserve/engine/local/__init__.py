"""Worker processes on this machine: start, feed, watch and end them.

The names are loaded when they are asked for: the first worker is to be started before the engine is there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlserve.engine.local.devices import available_cpus, discover_gpus
    from mlserve.engine.local.engine import LocalEngine
    from mlserve.engine.local.launch import LoadOptions, load_options
    from mlserve.engine.local.memory import memory_limit
    from mlserve.engine.local.pool import LocalPool

__all__ = ["LoadOptions", "LocalEngine", "LocalPool", "available_cpus", "discover_gpus", "load_options", "memory_limit"]

_HOMES = {
    "LoadOptions": "launch",
    "LocalEngine": "engine",
    "LocalPool": "pool",
    "available_cpus": "devices",
    "discover_gpus": "devices",
    "load_options": "launch",
    "memory_limit": "memory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
