"""What ``mlserve doctor`` finds out about the archives, handlers and workflows of an installation of TorchServe.

Nothing is changed and no port is opened. Each archive is loaded once, in a worker as the server would start it, because
only that shows what is missing.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from mlserve.archive.download import is_url
from mlserve.archive.requirements import installing
from mlserve.archive.store import ModelStore
from mlserve.archive.workflow_store import WorkflowStore
from mlserve.cli.checkup import CHANGED, FAILED, MISSING, OK, Finding, is_there
from mlserve.cli.loops import run_loop
from mlserve.cli.trial import Trial
from mlserve.core.model import ModelSpec
from mlserve.core.workflow_graph import parse_graph
from mlserve.engine.local import LocalEngine, available_cpus, load_options
from mlserve.errors import ServeError
from mlserve.settings import Settings


def archive_findings(settings: Settings, work_dir: Path) -> list[Finding]:
    """Load every archive of the model store, one after the other, and read the workflows."""
    if not Path(settings.models.store).is_dir():
        return [Finding(FAILED, settings.models.store, "the model store is no directory")]
    return run_loop(_load_all(settings, work_dir))


async def _load_all(settings: Settings, work_dir: Path) -> list[Finding]:
    root = Path(settings.models.store)
    store = ModelStore(
        root,
        work_dir=work_dir,
        defaults={"startup_timeout": settings.defaults.startup_timeout},
        model_settings=settings.model,
        allowed_urls=(),
        default_handler=settings.models.default_handler,
        installing=installing(settings),
    )
    options = replace(load_options(settings), retry_first_load=False)
    engine = LocalEngine(gpu_ids=(), cpus=available_cpus(), options=options)
    findings: list[Finding] = []
    try:
        for path in await asyncio.to_thread(store.list):
            with _remarks() as remarks:
                found = await _load(store, engine, path, settings)
            findings += [*found, *(Finding(CHANGED, path.name, text) for text in remarks)]
    finally:
        await engine.close()
    workflow_root = Path(settings.models.workflow_store or root)
    workflows = WorkflowStore(workflow_root, work_dir=work_dir, defaults={}, allowed_urls=())
    for path in await asyncio.to_thread(lambda: sorted(workflow_root.glob("*.war"))):
        findings += await _workflow(workflows, path, root)
    return findings


@contextlib.contextmanager
def _remarks() -> Iterator[list[str]]:
    """What is logged about archives meanwhile. Nothing else of the log is shown: the findings have it."""
    texts: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(lambda record: record.name.startswith("mlserve.archive"))
    everything = logging.getLogger()
    before, everything.handlers = everything.handlers, [handler]
    try:
        yield texts
    finally:
        everything.handlers = before


async def _load(store: ModelStore, engine: LocalEngine, path: Path, settings: Settings) -> list[Finding]:
    try:
        spec = await store.resolve_local(path.name, {})
    except ServeError as error:
        return [Finding(FAILED, path.name, error.message, error.detail)]
    found = list(import_findings(path.name, Path(spec.model_dir))) if not spec.python else []
    requirements = (spec.manifest.get("model") or {}).get("requirementsFile")
    if requirements and not settings.workers.install_requirements:
        text = f"its {requirements} is not installed, as install_py_dep_per_model is not true"
        found.append(Finding(CHANGED, path.name, text))
    try:
        async with Trial(engine, spec) as trial:
            memory = trial.memory_bytes / 2**20
            text = f"loads as {spec.key} in {trial.load_seconds:.1f} s, {memory:.0f} MiB resident, {_how(spec)}"
            found.append(Finding(OK, path.name, text))
    except ServeError as error:
        gone = [item.text.split()[1].strip(",") for item in found if item.level == MISSING]
        if any(f"No module named '{name}" in error.message for name in gone):
            found.append(Finding(FAILED, path.name, f"does not load without {', '.join(gone)}"))
        else:
            found.append(Finding(FAILED, path.name, error.message, _own_part(error.detail, spec.model_dir, path.name)))
    finally:
        store.release(spec)
    return found


def _own_part(detail: str, model_dir: str, archive: str) -> str:
    """The part of a traceback that is the model's own, with paths in the archive: ours tells its author nothing."""
    lines = detail.splitlines()
    first = next((number for number, line in enumerate(lines) if model_dir in line), 0)
    return "\n".join(lines[first:]).replace(model_dir, archive)


def _how(spec: ModelSpec) -> str:
    workers = f"{spec.min_workers} to {spec.max_workers} workers" if spec.max_workers > 1 else "1 worker"
    return f"handler {spec.handler}, batch {spec.batch_size}, {workers}"


async def _workflow(store: WorkflowStore, path: Path, models: Path) -> list[Finding]:
    """Read a workflow; its models are examined as archives."""
    try:
        files = await store.resolve(path.name)
        try:
            nodes = parse_graph(files.name, files.spec).nodes.values()
            found = list(import_findings(path.name, Path(files.directory)))
        finally:
            store.release(files)
    except ServeError as error:
        return [Finding(FAILED, path.name, error.message)]
    for node in nodes:
        if node.url and not is_url(node.url) and not (models / node.url).exists():
            found.append(Finding(FAILED, path.name, f"its node {node.name} is {node.url}, which is not in {models}"))
    if not any(item.level == FAILED for item in found):
        parts = ", ".join(f"{node.name} ({node.url or 'function'})" for node in nodes)
        found.append(Finding(OK, path.name, f"workflow {files.name} of {parts}; register it with POST /workflows"))
    return found


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
            if name in own or name in sys.stdlib_module_names or name == "ts" or is_there(name):
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
