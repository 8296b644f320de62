"""``workflow_archiver`` as scripts import it, over our packer."""

from __future__ import annotations

from mlserve import __version__

__all__ = ["__version__"]
