"""The runtimes that a manifest may name."""

from __future__ import annotations

from enum import Enum


class RuntimeType(Enum):
    """Values of ``runtime``."""

    PYTHON = "python"
    PYTHON3 = "python3"
    LSP = "LSP"
