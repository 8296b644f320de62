"""Imports point down only: the table of docs/architecture.md, held on the syntax tree so that nothing has to be run.

Imports inside functions and under TYPE_CHECKING count as well: a dependency is a dependency. The few that are allowed
against the table are named below, each with its reason.
"""

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"mlserve": "mlserve", "handlers": "mlserve.handlers", "templates": "mlserve.templates"}
"""Folder in the checkout -> the package it is installed as."""

LEVELS = {
    "__init__": 0,
    "errors": 1.0,
    "allocator": 1.0,
    "build": 1.0,
    "gpus": 1.0,
    "grouping": 1.0,
    "handler": 1.0,
    "native": 1.0,
    "settings": 1.1,
    "log": 1.2,
    "core": 2,
    "wire": 2,
    "protocols": 3,
    "archive": 3,
    "rest": 4,
    "rpc": 4,
    "engine": 4,
    "load": 4.5,
    "startup": 4.8,
    "snapshots": 4.9,
    "server": 5.0,
    "cli": 5.1,
    "__main__": 5.2,
}
"""First name below ``mlserve`` -> level. A module imports lower levels and its own part, never another of its level:
core and wire, protocols and archive, rest and rpc and engine don't know each other."""

ONLY = {
    "worker": (
        "mlserve.worker",
        "mlserve.wire",
        "mlserve.core.messages",
        "mlserve.archive.manifest",
        "mlserve.handler",
        "mlserve.errors",
        "mlserve.native",
    ),
    "compat": (
        "mlserve.compat",
        "mlserve.worker",
        "mlserve.wire",
        "mlserve.handler",
        "mlserve.handlers",
        "mlserve.errors",
        "mlserve.archive",
    ),
    "handlers": ("mlserve.handlers", "mlserve.handler", "mlserve.grouping", "mlserve.errors"),
    "templates": ("mlserve.templates", "mlserve.handler", "mlserve.handlers"),
}
"""Parts beside the levels: everything of mlserve that they may import."""

PRIVATE = {
    "worker": ("mlserve.worker", "mlserve.compat"),
    "compat": ("mlserve.compat", "mlserve.worker.main", "mlserve.cli"),
    "handlers": ("mlserve.handlers", "mlserve.templates", "mlserve.compat"),
}
"""Parts that only these may import; everybody else starts or loads them by name."""

EXCEPTIONS = {
    (
        "mlserve.cli.run",
        "mlserve.worker",
    ): "`mlserve run` is the worker's handler code in this process, imported when asked for",
    ("mlserve.worker.main", "mlserve.compat"): "the worker installs the `ts.*` names before it loads a handler",
}
"""(importing module, imported part) -> why. Must be imports inside functions, so that they cost nothing otherwise."""

STDLIB_ONLY = {"allocator", "errors", "gpus", "grouping", "handler", "log", "settings"}


def modules() -> dict[str, Path]:
    """Module name, as installed -> its file."""
    found = {}
    for folder, prefix in (
        ("mlserve", "mlserve"),
        ("handlers", "mlserve.handlers"),
        ("templates", "mlserve.templates"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join([prefix, *parts]).removesuffix(".__init__")
            found[name] = path
    return found


MODULES = modules()


def imports(name: str, path: Path) -> Iterator[tuple[str, int, bool]]:
    """(imported dotted name, line, inside a function) for every import statement of a file."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    stack: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_bytes(), str(path)), False)]
    while stack:
        node, inside = stack.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, inside
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                base = ".".join(above[: len(above) - node.level + 1] + ([base] if base else []))
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in MODULES else base), node.lineno, inside
        inside = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        stack.extend((child, inside) for child in ast.iter_child_nodes(node))


def part_of(name: str) -> str:
    """``mlserve.core.job`` -> ``core``; ``mlserve`` -> ``__init__``."""
    return name.split(".")[1] if "." in name else "__init__"


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def refusal(importer: str, imported: str, inside: bool) -> str:
    """Why ``importer`` may not import ``imported``; empty if it may."""
    own, other = part_of(importer), part_of(imported)
    for (who, what), _why in EXCEPTIONS.items():
        if importer == who and within(imported, (what,)):
            return "" if inside else "allowed only inside a function"
    if own == other or imported == "mlserve":  # of the package itself there is only __version__
        return ""
    if own in ONLY:
        return "" if within(imported, ONLY[own]) else f"{own} may import only {', '.join(ONLY[own])}"
    if other in PRIVATE:
        return "" if within(importer, PRIVATE[other]) else f"{other} is imported only by {', '.join(PRIVATE[other])}"
    if own not in LEVELS or other not in LEVELS:
        return "not in the table of levels"
    if LEVELS[other] >= LEVELS[own]:
        return f"{own} is level {LEVELS[own]}, {other} is level {LEVELS[other]}: imports point down"
    return ""


@pytest.mark.parametrize("name", MODULES)
def test_no_import_against_the_layering(name: str) -> None:
    path = MODULES[name]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {imported}: {why}"
        for imported, line, inside in imports(name, path)
        if imported.split(".")[0] == "mlserve" and (why := refusal(name, imported, inside))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [name for name in MODULES if part_of(name) in STDLIB_ONLY])
def test_no_dependency_in_the_lowest_level(name: str) -> None:
    allowed = {*sys.stdlib_module_names, "mlserve", "tomli"}
    wrong = [imported for imported, _, _ in imports(name, MODULES[name]) if imported.split(".")[0] not in allowed]
    assert not wrong, f"{name} imports {wrong}; errors, handler, log and settings use the standard library only"


@pytest.mark.parametrize("name", [name for name in MODULES if part_of(name) == "core"])
def test_no_transport_in_the_core(name: str) -> None:
    banned = {"aiohttp", "grpc", "socket", "socketserver", "subprocess", "multiprocessing", "torch", "numpy", "PIL"}
    wrong = [imported for imported, _, _ in imports(name, MODULES[name]) if imported.split(".")[0] in banned]
    assert not wrong, f"{name} imports {wrong}; the core decides, adapters talk"


def test_handlers_never_imported_by_their_folder_name() -> None:
    """``import handlers`` works in a checkout and nowhere else; the installed name is mlserve.handlers."""
    files = [*MODULES.items(), *((f"tests.{path.stem}", path) for path in (ROOT / "tests").rglob("*.py"))]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for name, path in files
        for imported, line, _ in imports(name, path)
        if imported.split(".")[0] in {"handlers", "templates"}
    ]
    assert not wrong, f"imported as handlers or templates, not mlserve.handlers or mlserve.templates: {wrong}"


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("mlserve.core.job", "mlserve.wire.frames"),
        ("mlserve.protocols.torchserve", "mlserve.archive.manifest"),
        ("mlserve.rest.fast", "mlserve.engine.local.link"),
        ("mlserve.core.service", "mlserve.server"),
        ("mlserve.server", "mlserve.worker.main"),
        ("mlserve.server", "mlserve.compat.config"),
        ("mlserve.engine.local.pool", "mlserve.handlers.base"),
        ("mlserve.worker.loop", "mlserve.core.service"),
        ("mlserve.handlers.base", "mlserve.core.messages"),
    ],
)
def test_the_rule_refuses_what_it_is_for(importer: str, imported: str) -> None:
    assert refusal(importer, imported, inside=True)


def test_no_module_hides_one_of_the_same_name() -> None:
    """A module named like a dependency is read as that dependency, and shadows it for a script beside it."""
    requirements = importlib.metadata.requires("mlserve") or []
    dependencies = {re.split(r"[^A-Za-z0-9_-]", line)[0].replace("-", "_").lower() for line in requirements}
    imported = {"grpc", "yaml", "prometheus_client", "PIL", "google", "msgspec", "ray", "jax"}
    taken = (set(sys.stdlib_module_names) | dependencies | imported) - {"mlserve"}
    theirs = "mlserve.compat.ts."  # TorchServe's names: its json.py must be called that
    ours = [name for name in MODULES if not name.startswith(theirs)]
    names = {(name, part) for name in ours for part in name.split(".")[1:] if not part.startswith("__")}
    assert not [(name, part) for name, part in sorted(names) if part in taken]
