"""Write an archive: reproducible to the byte, streamed, and either whole or not there.

Every file is read twice: once for its SHA-256, which goes into the manifest at the front of the archive, and once to be
written, when it must have the same SHA-256 again. So a file that changes while it is packed is an error, and memory
holds one piece of one file. Members are sorted and have one time and one mode; ``createdOn`` is SOURCE_DATE_EPOCH, or
1980-01-01, the earliest date a zip file can hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import mlserve
from mlserve.archive.manifest import RUNTIMES, check_version
from mlserve.archive.plan import Plan, extra_entries, locate_handler
from mlserve.archive.writing import SUFFIXES, Content, replace_with, write_archive
from mlserve.core.model import check_name
from mlserve.errors import ArchiveError, InvalidInput

CHUNK = 1 << 20
WORKFLOW_MANIFEST_PATH = "WAR-INF/MANIFEST.json"
_MODEL_KEYS = (  # in the order of torch-model-archiver's manifest
    "modelName",
    "serializedFile",
    "handler",
    "modelFile",
    "modelVersion",
    "requirementsFile",
    "configFile",
)
EARLIEST = 315532800  # 1980-01-01T00:00:00Z
LATEST = 4354819198  # 2107-12-31T23:59:58Z, the last a zip file can hold

PathLike = str | os.PathLike[str]
Progress = Callable[[str, int, int], None]
"""Called as (member, bytes done, bytes of all work) after each piece. Each file counts twice, see above."""


def pack(
    *,
    model_name: str,
    version: str,
    handler: str,
    model_file: PathLike | None = None,
    serialized_file: PathLike | None = None,
    extra_files: str | Iterable[PathLike] | None = None,
    runtime: str = "python",
    export_path: PathLike | None = None,
    archive_format: str = "default",
    force: bool = False,
    requirements_file: PathLike | None = None,
    config_file: PathLike | None = None,
    progress: Progress | None = None,
    last_wins: bool = False,
    archiver_version: str = mlserve.__version__,
) -> Path:
    """Pack a model and return the path of the archive, ``export_path/model_name`` + ``.mar``, ``.tar.gz`` or nothing.

    The arguments are torch-model-archiver's flags. ``archive_format`` is ``default`` (deflated zip), ``zip-store``,
    ``tgz`` or ``no-archive`` (a directory). Raises :class:`ArchiveError` for anything that is wrong with the input, for
    an output that is there already without ``force``, and for a file that changes meanwhile; then nothing is left.
    ``last_wins``: two sources for one place in the archive are a warning, and the later one is packed, in
    torch-model-archiver's order: model, weights, handler, extra files, requirements, configuration.
    """
    check_archive_name(model_name)
    check_version(version)
    if runtime not in RUNTIMES:
        raise ArchiveError(f"Runtime {runtime!r} is not one of {', '.join(RUNTIMES)}")
    target = _target(Path(export_path or "."), model_name, archive_format, force)
    plan = Plan(last_wins=last_wins)
    found: dict[str, str] = {}
    if model_file is not None:
        found["modelFile"] = plan.add_named("--model-file", model_file)
    if serialized_file is not None:
        found["serializedFile"] = plan.add_named("--serialized-file", serialized_file)
    found["handler"], handler_file = locate_handler(handler, runtime)
    if handler_file is not None:
        plan.add(handler_file.name, handler_file)
    for entry in extra_entries(extra_files):
        plan.add_extra(entry, skip=target.absolute())
    if requirements_file is not None:
        found["requirementsFile"] = plan.add_named("--requirements-file", requirements_file)
    if config_file is not None:
        found["configFile"] = plan.add_named("--config-file", config_file)
    found |= {"modelName": model_name, "modelVersion": version}
    model = {key: found[key] for key in _MODEL_KEYS if key in found}
    epoch = source_date_epoch(os.environ)
    try:
        head = {"runtime": runtime, "model": model, "archiverVersion": archiver_version}
        _write(target, plan, head, epoch, archive_format, force, progress)
    except OSError as error:
        raise ArchiveError(f"Cannot write {target}: {error.strerror or error}") from error
    return target


def pack_workflow(
    *,
    workflow_name: str,
    spec_file: PathLike,
    handler: PathLike | None = None,
    extra_files: str | Iterable[PathLike] | None = None,
    export_path: PathLike | None = None,
    force: bool = False,
    archiver_version: str = mlserve.__version__,
) -> Path:
    """Pack a workflow and return the path of the archive, ``export_path/workflow_name.war`` (a deflated zip).

    The arguments are torch-workflow-archiver's flags; ``handler`` is the Python file with the functions that are nodes
    of the graph. Raises as :func:`pack` does.
    """
    check_archive_name(workflow_name)
    target = _target(Path(export_path or "."), workflow_name, "default", force, suffix=".war")
    plan = Plan(WORKFLOW_MANIFEST_PATH)
    workflow = {"workflowName": workflow_name, "specFile": plan.add_named("--spec-file", spec_file)}
    if handler is not None:
        workflow["handler"] = plan.add_named("--handler", handler)
    for entry in extra_entries(extra_files):
        plan.add_extra(entry, skip=target.absolute())
    epoch = source_date_epoch(os.environ)
    try:
        head = {"workflow": workflow, "archiverVersion": archiver_version}
        _write(target, plan, head, epoch, "default", force, None)
    except OSError as error:
        raise ArchiveError(f"Cannot write {target}: {error.strerror or error}") from error
    return target


def source_date_epoch(environ: Mapping[str, str]) -> int:
    """The time that every member and ``createdOn`` get, in seconds since 1970."""
    text = environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return EARLIEST
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ArchiveError(f"SOURCE_DATE_EPOCH must be seconds since 1970, got {text[:40]!r}")
    return min(max(int(text), EARLIEST), LATEST)


def check_archive_name(name: str) -> None:
    """Raises :class:`ArchiveError` for a name that no model can have."""
    try:
        check_name(name)
    except InvalidInput as error:
        raise ArchiveError(error.message) from None


def _target(export_path: Path, name: str, archive_format: str, force: bool, suffix: str | None = None) -> Path:
    if archive_format not in SUFFIXES:
        raise ArchiveError(f"Archive format {archive_format!r} is not one of {', '.join(SUFFIXES)}")
    if not export_path.is_dir():
        raise ArchiveError(f"--export-path: directory {str(export_path)!r} was not found")
    target = export_path / f"{name}{SUFFIXES[archive_format] if suffix is None else suffix}"
    if target.is_symlink() or target.exists():
        if not force:
            raise ArchiveError(f"{target} exists already: use --force to overwrite it")
        if target.is_dir() != (archive_format == "no-archive"):
            raise ArchiveError(f"{target} exists and is {'a' if target.is_dir() else 'no'} directory: remove it first")
    return target


def _write(
    target: Path,
    plan: Plan,
    head: dict[str, Any],
    epoch: int,
    archive_format: str,
    force: bool,
    progress: Progress | None,
) -> None:
    sizes = {name: source.stat().st_size for name, source in plan.sources.items()}
    meter = _Meter(progress, 2 * sum(sizes.values()))
    checksums = {}
    for name in sorted(plan.sources):
        digest = hashlib.sha256()
        for piece in _pieces(plan.sources[name]):
            digest.update(piece)
            meter.add(name, len(piece))
        checksums[name] = digest.hexdigest()
    manifest = {
        "createdOn": datetime.fromtimestamp(epoch, timezone.utc).strftime("%d/%m/%Y %H:%M:%S"),
        **head,
        "checksums": checksums,
    }
    text = json.dumps(manifest, indent=2).encode()
    contents = [Content(plan.manifest, len(text), lambda: iter([text]))]
    for name in sorted(plan.sources):
        contents.append(_content(name, plan.sources[name], sizes[name], checksums[name], meter))
    with replace_with(target, force=force) as scratch:
        write_archive(scratch, contents, archive_format, top=target.name.removesuffix(".tar.gz"), epoch=epoch)


def _content(name: str, source: Path, size: int, checksum: str, meter: _Meter) -> Content:
    def stream() -> Iterator[bytes]:
        digest, done = hashlib.sha256(), 0
        for piece in _pieces(source):
            digest.update(piece)
            done += len(piece)
            if done > size:
                break
            yield piece
            meter.add(name, len(piece))
        if done != size or digest.hexdigest() != checksum:
            raise ArchiveError(f"{source} changed while it was being packed")

    return Content(name, size, stream)


def _pieces(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece


class _Meter:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def add(self, name: str, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(name, self._done, self._total)
