"""Model archives: pack, look into, check, unpack and compare them.

``pack``, ``inspect``, ``verify``, ``unpack`` and ``diff`` do what the commands ``mlserve archive …`` do. They are
imported when first used, because workers need only :mod:`mlserve.archive.manifest` from here and start faster so.
The format is described in docs/archive-format.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlserve.archive.extract import unpack
    from mlserve.archive.inspecting import ArchiveInfo, MemberInfo, inspect
    from mlserve.archive.packing import pack, pack_workflow
    from mlserve.archive.verifying import Change, Diff, Problem, VerifyReport, diff, verify

__all__ = [
    "ArchiveInfo",
    "Change",
    "Diff",
    "MemberInfo",
    "Problem",
    "VerifyReport",
    "diff",
    "inspect",
    "pack",
    "pack_workflow",
    "unpack",
    "verify",
]

_HOME = {
    "pack": "packing",
    "pack_workflow": "packing",
    "unpack": "extract",
    "inspect": "inspecting",
    "ArchiveInfo": "inspecting",
    "MemberInfo": "inspecting",
    "verify": "verifying",
    "diff": "verifying",
    "VerifyReport": "verifying",
    "Problem": "verifying",
    "Diff": "verifying",
    "Change": "verifying",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
