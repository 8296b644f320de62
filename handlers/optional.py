"""Packages that only one handler needs: imported when that handler is loaded, and named when they are missing."""

from __future__ import annotations

import importlib
from typing import Any


def required(module: str, handler: str, package: str, install: str = "") -> Any:
    """The module. Raises ``ImportError`` that names the handler, the package, and what pip is to ``install`` for it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"The handler {handler} needs the package {package}: pip install {install or package} ({error})"
        ) from error
