"""What mypyc is told about a class (setup.py), without a package that is needed when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_attributes: Any) -> Callable[[type], type]:
        """Leave the class as it is."""
        return lambda cls: cls
