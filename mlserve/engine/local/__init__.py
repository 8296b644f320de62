"""Worker processes on this machine: start, feed, watch and end them."""

from mlserve.engine.local.devices import available_cpus, discover_gpus
from mlserve.engine.local.engine import LocalEngine
from mlserve.engine.local.launch import LoadOptions, load_options
from mlserve.engine.local.pool import LocalPool

__all__ = ["LoadOptions", "LocalEngine", "LocalPool", "available_cpus", "discover_gpus", "load_options"]
