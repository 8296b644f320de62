"""Packages that only one handler needs: imported when that handler is loaded, and named when they are missing."""

from __future__ import annotations

import importlib
from typing import Any


def required(module: str, handler: str, package: str) -> Any:
    """The module. Raises ``ImportError`` that names the handler and the package to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"The handler {handler} needs the package {package}: pip install {package} ({error})"
        ) from error
