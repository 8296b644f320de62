"""What is in an archive, and which of it will run, without unpacking it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlserve.archive.manifest import (
    MANIFEST_PATH,
    MAX_MANIFEST_BYTES,
    module_of,
    parse_manifest,
    split_handler,
)
from mlserve.archive.names import check_member_name
from mlserve.archive.opening import open_archive, top_directory
from mlserve.archive.plan import is_built_in
from mlserve.archive.reading import DEFAULT_LIMITS, Limits, Member, Reader
from mlserve.archive.yamlfile import MAX_CONFIG_BYTES, parse_config
from mlserve.errors import ArchiveError

MAX_TEXT_BYTES = 1 << 20


@dataclass(frozen=True)
class MemberInfo:
    """A file by its path in the model directory. Sizes in bytes; ``compressed`` is ``None`` if unknown."""

    name: str
    size: int
    compressed: int | None = None


@dataclass(frozen=True)
class ArchiveInfo:
    """What :func:`inspect` finds. ``problems`` are reasons why the model would not load."""

    path: str
    kind: str  # "zip", "tgz" or "directory"
    size: int  # of the archive file, or of all files of a directory, in bytes
    manifest: Mapping[str, Any] | None
    members: tuple[MemberInfo, ...]
    model_name: str = ""
    version: str = ""
    runtime: str = ""
    handler: str = ""  # as in the manifest
    handler_file: str = ""  # the member that holds its code, "" for a built-in or missing handler
    handler_source: str = ""  # "archive", "built-in", "environment" or "none"
    function: str = ""  # "" = `handle`, or the file's class
    model_file: str = ""
    serialized_file: str = ""
    requirements: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def unpacked_size(self) -> int:
        """Bytes of all members together."""
        return sum(member.size for member in self.members)


def inspect(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> ArchiveInfo:
    """Describe an archive or unpacked model. Raises :class:`ArchiveError` if it cannot be read or must not be trusted.

    A manifest or config that is wrong is no exception here but an entry of ``problems``.
    """
    source = Path(path)
    with open_archive(source, limits) as reader:
        stored = reader.members()
        top = top_directory([member.name for member in stored])
        members = tuple(_below(member, top) for member in stored)
        problems: list[str] = []
        manifest = _manifest(reader, top, problems)
        model = manifest["model"] if manifest else {}
        names = {member.name for member in members}
        details = _code(model, names, problems)
        for key in ("modelFile", "serializedFile", "requirementsFile", "configFile"):
            if model.get(key) and model[key] not in names:
                problems.append(f"{key} {model[key]!r} of the manifest is not in the archive")
        return ArchiveInfo(
            path=str(source),
            kind=reader.kind,
            size=sum(m.size for m in members) if reader.kind == "directory" else source.stat().st_size,
            manifest=manifest,
            members=members,
            model_name=model.get("modelName", ""),
            version=model.get("modelVersion", ""),
            runtime=manifest["runtime"] if manifest else "",
            model_file=model.get("modelFile") or "",
            serialized_file=model.get("serializedFile") or "",
            requirements=_requirements(reader, top, model, problems),
            config=_config(reader, top, model, problems),
            problems=tuple(problems),
            **details,
        )


def _below(member: Member, top: str) -> MemberInfo:
    return MemberInfo(member.name.removeprefix(top), member.size, member.compressed)


def _manifest(reader: Reader, top: str, problems: list[str]) -> dict[str, Any] | None:
    try:
        text = reader.read(top + MANIFEST_PATH, MAX_MANIFEST_BYTES)
        if text is not None:
            return parse_manifest(text)
        problems.append("there is no manifest: name, version and handler have to be given when it is registered")
    except ArchiveError as error:
        problems.append(error.message)
    return None


def _code(model: Mapping[str, Any], names: set[str], problems: list[str]) -> dict[str, str]:
    """Where the code of the handler comes from, in the order in which a worker looks."""
    handler = model.get("handler") or ""
    if not handler:
        if model:
            problems.append("the manifest names no handler")
        return {"handler_source": "none"}
    try:
        module, function = module_of(handler), split_handler(handler)[1]
    except ArchiveError as error:
        problems.append(error.message)
        return {"handler": handler, "handler_source": "none"}
    found = {"handler": handler, "function": function}
    for file in (f"{module}.py", f"{module}/__init__.py", module, f"{module}.so"):
        if file in names:
            return {**found, "handler_source": "archive", "handler_file": file}
    if is_built_in(module):
        return {**found, "handler_source": "built-in"}
    problems.append(f"handler {module!r} is neither in the archive nor built in; it would have to be installed")
    return {**found, "handler_source": "environment"}


def _requirements(reader: Reader, top: str, model: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    text = _text(reader, top, model.get("requirementsFile"), MAX_TEXT_BYTES, problems)
    lines = (line.strip() for line in text.decode(errors="replace").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _config(reader: Reader, top: str, model: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    name = model.get("configFile")
    try:
        return parse_config(_text(reader, top, name, MAX_CONFIG_BYTES, problems), name or "")
    except ArchiveError as error:
        problems.append(error.message)
        return {}


def _text(reader: Reader, top: str, name: str | None, limit: int, problems: list[str]) -> bytes:
    if not name:
        return b""
    try:
        return reader.read(top + check_member_name(name), limit) or b""
    except ArchiveError as error:
        problems.append(error.message)
        return b""
