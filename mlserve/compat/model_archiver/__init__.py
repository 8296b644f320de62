"""``model_archiver`` as scripts and notebooks import it: TorchServe's Python API of the archiver over ours.

Reached as ``model_archiver`` through the folder that ``mlserve compat install-shims`` writes.
"""

from __future__ import annotations

from mlserve.compat.model_archiver.model_archiver import ModelArchiver
from mlserve.compat.model_archiver.model_archiver_config import ModelArchiverConfig
from mlserve.compat.model_archiver.model_archiver_error import ModelArchiverError
from mlserve.compat.model_archiver.version import __version__

__all__ = ["ModelArchiver", "ModelArchiverConfig", "ModelArchiverError", "__version__"]
