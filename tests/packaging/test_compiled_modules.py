"""What setup.py compiles is fit for it: checked without compiling anything, which takes minutes."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TREE = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
(MODULES,) = (
    ast.literal_eval(node.value)
    for node in TREE.body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES"
)
# Bases from elsewhere that are fit: no instance of theirs has attributes, or can be referred to weakly.
FIT = {"NamedTuple", "Protocol", "IntEnum", "Exception", "asyncio.Protocol"}


def classes(paths: list[Path]) -> list[tuple[Path, ast.ClassDef]]:
    found = [(path, node) for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    return [(path, node) for path, node in found if isinstance(node, ast.ClassDef)]


def test_no_compiled_class_derives_from_one_that_crashes_when_it_is_freed() -> None:
    """mypyc leaves the weak references to such objects behind: the next collection is a segmentation fault."""
    compiled = classes([ROOT / name for name in MODULES])
    known = {node.name for _, node in compiled} | FIT
    bad = [f"{path.name}: {node.name}({ast.unparse(b)})" for path, node in compiled for b in node.bases]
    bad = [text for text in bad if text.split("(", 1)[1][:-1] not in known]
    assert not bad


def test_no_interpreted_class_derives_from_a_compiled_one() -> None:
    """Python refuses that when the module is imported, unless mypyc was told of it."""
    inside = {ROOT / name for name in MODULES}
    told = "mypyc_attr(allow_interpreted_subclasses=True)"
    names = {node.name for _, node in classes(sorted(inside)) if told not in map(ast.unparse, node.decorator_list)}
    imported = []
    for path in sorted({*(ROOT / "mlserve").rglob("*.py"), *(ROOT / "handlers").rglob("*.py")} - inside):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        taken = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and f"{(node.module or '').replace('.', '/')}.py" in MODULES
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                imported += [f"{path.name}: {node.name}" for b in node.bases if ast.unparse(b) in taken & names]
    assert not imported


def test_no_compiled_attribute_is_left_without_its_default() -> None:
    """mypyc skips ``= None`` unless the type is that of one thing or None: read before it is set, it is an error."""
    nodes = [one for _, node in classes([ROOT / name for name in MODULES]) for one in node.body]
    plain = [one for one in nodes if isinstance(one, ast.AnnAssign) and ast.unparse(one).endswith(" = None")]
    unions = [one.annotation for one in plain if isinstance(one.annotation, ast.BinOp)]
    assert unions
    assert not [ast.unparse(union) for union in unions if isinstance(union.left, ast.BinOp)]


def test_nothing_that_is_compiled_imports_a_large_package() -> None:
    """Not in a function either: where torch is installed mypy would read it, ten minutes and 2.3 GB of a build."""
    large = {"torch", "numpy", "PIL", "onnxruntime", "transformers"}
    todo, seen = [ROOT / name for name in MODULES], set[Path]()
    found: list[str] = []
    while todo:
        path = todo.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found += [f"{path.name}: {name}" for name in names if name.partition(".")[0] in large]
            todo += [ROOT / f"{name.replace('.', '/')}.py" for name in names if name.startswith("mlserve.")]
    assert len(seen) > len(MODULES)
    assert not found
