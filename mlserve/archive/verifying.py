"""Check an archive to the last byte, and compare two."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlserve.archive.inspecting import inspect
from mlserve.archive.manifest import MANIFEST_PATH, checksums_of
from mlserve.archive.opening import open_archive, top_directory
from mlserve.archive.reading import DEFAULT_LIMITS, Limits
from mlserve.errors import ArchiveError


@dataclass(frozen=True)
class Problem:
    """Something wrong with an archive; ``member`` is ``""`` when it is not about one of its files."""

    member: str
    reason: str


@dataclass(frozen=True)
class VerifyReport:
    """What :func:`verify` finds. ``checked`` counts members read to the end, ``checksums`` those the manifest lists."""

    path: str
    problems: tuple[Problem, ...]
    checked: int
    checksums: int

    @property
    def ok(self) -> bool:
        """Whether the archive is whole and would load."""
        return not self.problems


@dataclass(frozen=True)
class Change:
    """A difference: ``what`` is a member or ``manifest:KEY``; ``None`` = not there. Members show size and SHA-256."""

    what: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class Diff:
    """What :func:`diff` finds between two archives, whatever their formats."""

    a: str
    b: str
    changes: tuple[Change, ...]

    @property
    def same(self) -> bool:
        """Whether both hold the same files and say the same in their manifests."""
        return not self.changes


def verify(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> VerifyReport:
    """Read every member, compare checksums, and look whether what the manifest names is there.

    Never raises for a bad archive, which is what it is there to report; raises :class:`ArchiveError` only if there is
    no such file.
    """
    source = Path(path)
    if not source.exists():
        raise ArchiveError(f"{source} was not found")
    try:
        info = inspect(source, limits=limits)
        hashes = _hashes(source, limits)
        expected = checksums_of(info.manifest)
    except ArchiveError as error:
        return VerifyReport(str(source), (Problem("", error.message),), 0, 0)
    problems = [Problem("", reason) for reason in info.problems]
    for name, value in sorted(expected.items()):
        if name not in hashes:
            problems.append(Problem(name, "is listed in the manifest and missing"))
        elif hashes[name][1] != value:
            problems.append(Problem(name, "its SHA-256 is not the manifest's"))
    if expected:
        unlisted = sorted(hashes.keys() - expected.keys() - {MANIFEST_PATH})
        problems.extend(Problem(name, "is not listed in the manifest") for name in unlisted)
    return VerifyReport(str(source), tuple(problems), len(hashes), len(expected))


def diff(a: str | os.PathLike[str], b: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Diff:
    """Compare two archives by the content of their members and the entries of their manifests.

    Raises :class:`ArchiveError` if one cannot be read.
    """
    left, right = (_hashes(Path(path), limits) for path in (a, b))
    changes = [
        Change(name, _shown(left.get(name)), _shown(right.get(name)))
        for name in sorted((left.keys() | right.keys()) - {MANIFEST_PATH})
        if left.get(name) != right.get(name)
    ]
    said, also = (_entries(inspect(path, limits=limits).manifest) for path in (a, b))
    changes += [
        Change(f"manifest:{key}", said.get(key), also.get(key))
        for key in sorted(said.keys() | also.keys())
        if said.get(key) != also.get(key)
    ]
    return Diff(os.fspath(a), os.fspath(b), tuple(changes))


def _hashes(path: Path, limits: Limits) -> dict[str, tuple[int, str]]:
    """Path in the model directory -> (size in bytes, SHA-256 in hex), read to the last byte."""
    found = {}
    with open_archive(path, limits) as reader:
        for member, content in reader.walk():
            digest = hashlib.sha256()
            for piece in content:
                digest.update(piece)
            found[member.name] = (member.size, digest.hexdigest())
    top = top_directory(list(found))
    return {name.removeprefix(top): value for name, value in found.items()}


def _shown(entry: tuple[int, str] | None) -> str | None:
    return None if entry is None else f"{entry[0]} bytes, sha256 {entry[1]}"


def _entries(manifest: Any, prefix: str = "") -> dict[str, str]:
    """Flat view of a manifest without its checksums, which the members' own tell."""
    found: dict[str, str] = {}
    for key, value in (manifest or {}).items():
        if isinstance(value, dict) and key != "checksums":
            found.update(_entries(value, f"{prefix}{key}."))
        elif key != "checksums":
            found[f"{prefix}{key}"] = str(value)
    return found
