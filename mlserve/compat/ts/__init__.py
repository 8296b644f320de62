"""The names that handlers and scripts import from TorchServe's package ``ts``; ``mlserve.compat.finder`` aliases it."""

from mlserve.compat.ts import version
from mlserve.compat.ts.version import __version__

__all__ = ["__version__", "version"]
