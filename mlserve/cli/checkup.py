"""What ``mlserve doctor`` finds out about an installation of TorchServe: its settings, its archives, its handlers.

Nothing is changed and no port is opened. Each archive is loaded once, in a worker as the server would start it, because
only that shows what is missing.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlserve.archive.store import ModelStore
from mlserve.core.model import ModelSpec
from mlserve.engine.local import LocalEngine, available_cpus, load_options
from mlserve.errors import ServeError
from mlserve.settings import Settings
from mlserve.settings.values import written

OK, CHANGED, MISSING, FAILED = "ok", "changed", "missing", "failed"


@dataclass(frozen=True)
class Finding:
    """One line. ``level`` is one of ok, changed, missing, failed; the last two are for the user to solve."""

    level: str
    about: str
    text: str
    detail: str = ""


def settings_findings(path: Path, entries: Sequence[tuple[str, str, int]], settings: Settings) -> Iterator[Finding]:
    """One line per entry of the file: what it sets here, or why it is ignored."""
    by_source: dict[str, list[str]] = {}
    for key, source in settings.sources.items():
        by_source.setdefault(source, []).append(key)
    notes = {note.partition(": ")[0]: note.partition(": ")[2] for note in settings.notes}
    for key, value, line in entries:
        source = f"{path.name}:{line}"
        about = f"{source} {key}"
        if source in by_source:
            shown = ", ".join(f"{name} = {_value(settings, name)}" for name in by_source[source])
            yield Finding(OK, about, f"honoured: {shown}")
        elif source in notes:
            yield Finding(CHANGED, about, notes[source])
        else:
            yield Finding(OK, about, f"honoured ({value})" if value else "empty, as if it were not there")
    for source, note in notes.items():
        if not source.startswith(f"{path.name}:"):
            yield Finding(CHANGED, source, note)
    for name, source in settings.sources.items():
        if source.startswith("env "):
            yield Finding(OK, source, f"honoured: {name} = {_value(settings, name)}")


def _value(settings: Settings, key: str) -> str:
    section, _, name = key.partition(".")
    if section == "model":
        model, _, field = name.rpartition(".")
        return written(settings.model.get(model, {}).get(field))
    if "pass" in name:
        return "(not shown)"
    return written(getattr(getattr(settings, section), name))


def archive_findings(settings: Settings, work_dir: Path) -> list[Finding]:
    """Load every archive of the model store, one after the other."""
    return asyncio.run(_load_all(settings, work_dir))


async def _load_all(settings: Settings, work_dir: Path) -> list[Finding]:
    root = Path(settings.models.store)
    store = ModelStore(
        root,
        work_dir=work_dir,
        defaults={"startup_timeout": settings.defaults.startup_timeout},
        model_settings=settings.model,
        allowed_urls=(),
        default_handler=settings.models.default_handler,
        install_requirements=settings.workers.install_requirements,
    )
    options = replace(load_options(settings), retry_first_load=False)
    engine = LocalEngine(gpu_ids=(), cpus=available_cpus(), options=options)
    findings: list[Finding] = []
    try:
        for path in await asyncio.to_thread(store.list):
            findings += await _load(store, engine, path)
    finally:
        await engine.close()
    return findings


async def _load(store: ModelStore, engine: LocalEngine, path: Path) -> list[Finding]:
    try:
        spec = await store.resolve_local(path.name, {})
    except ServeError as error:
        return [Finding(FAILED, path.name, error.message, error.detail)]
    found = list(import_findings(path.name, Path(spec.model_dir))) if not spec.python else []
    pool = engine.open(replace(spec, min_workers=1, max_workers=1), _Nobody())
    started = time.monotonic()
    try:
        await pool.scale(1)
        worker = pool.describe()[0]
        took = time.monotonic() - started
        text = f"loads as {spec.key} in {took:.1f} s, {worker.memory_bytes / 2**20:.0f} MiB resident, {_how(spec)}"
        found.append(Finding(OK, path.name, text))
    except ServeError as error:
        found.append(Finding(FAILED, path.name, error.message, error.detail))
    finally:
        await pool.stop(5.0)
        store.release(spec)
    return found


def _how(spec: ModelSpec) -> str:
    workers = f"{spec.min_workers} to {spec.max_workers} workers" if spec.max_workers > 1 else "1 worker"
    return f"handler {spec.handler}, batch {spec.batch_size}, {workers}"


class _Nobody:
    """The queue's place, while there are no requests."""

    def worker_loaded(self, *what: Any) -> None:
        """How long that took is measured here."""

    def load_failed(self, *what: Any) -> None:
        """The pool tells why."""

    def slot_ready(self, slot: Any) -> None:
        """The model has been loaded."""

    def slot_closing(self, slot: Any) -> None:
        """It is being ended."""

    def slot_lost(self, slot: Any, started: Any, unstarted: Any, error: Any) -> None:
        """It has died; the pool tells why."""

    def batch_done(self, slot: Any, batch: Any, results: Any, report: Any) -> None:
        """There are none."""

    def item_chunk(self, batch: Any, index: int, chunk: Any) -> None:
        """There are none."""

    def gave_up(self, error: Any) -> None:
        """The pool tells why."""


def import_findings(about: str, model_dir: Path) -> Iterator[Finding]:
    """Modules that the model's own Python files import and that workers here would not find."""
    own = {path.stem for path in model_dir.glob("*.py")} | {path.name for path in model_dir.iterdir() if path.is_dir()}
    for file in sorted(model_dir.glob("*.py")):
        try:
            tree = ast.parse(file.read_bytes(), file.name)
        except SyntaxError as error:
            yield Finding(
                FAILED, f"{about} {file.name}:{error.lineno}", f"is no Python that this version reads: {error.msg}"
            )
            continue
        for name, (line, optional) in sorted(_imported(tree).items()):
            if name in own or name in sys.stdlib_module_names or name == "ts" or _is_there(name):
                continue
            how = "only where it is there (inside try)" if optional else "and it is not installed"
            level = CHANGED if optional else MISSING
            yield Finding(level, f"{about} {file.name}:{line}", f"imports {name}, {how}")


def _imported(tree: ast.AST) -> Mapping[str, tuple[int, bool]]:
    """First part of each imported name -> (line, whether every import of it is inside a try or a function)."""
    found: dict[str, tuple[int, bool]] = {}
    stack: list[tuple[ast.AST, bool]] = [(tree, False)]
    while stack:
        node, guarded = stack.pop()
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            first = name.partition(".")[0]
            line, optional = found.get(first, (getattr(node, "lineno", 0), True))
            found[first] = (line, optional and guarded)
        inside = guarded or isinstance(node, (ast.Try, ast.FunctionDef, ast.AsyncFunctionDef))
        stack.extend((child, inside) for child in ast.iter_child_nodes(node))
    return found


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
