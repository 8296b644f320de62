"""``workflow_archiver`` as scripts import it, over our packer."""

from __future__ import annotations

from mlserve.compat.workflow_archiver.version import __version__

__all__ = ["__version__"]
