"""Files and functions stay small enough to read in one sitting: at most 400 lines a file, 60 a function."""

import ast
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("mlserve", "handlers", "benchmarks", "scripts", "tests")
SHIPPED = ("mlserve", "handlers")
MAX_FILE, MAX_FUNCTION, MAX_MEDIAN = 400, 60, 150


def sources(folders: tuple[str, ...]) -> list[Path]:
    """Python files people write: generated protobuf code and scratch folders are left out."""
    skipped = {"generated", ".scratch", "results", "__pycache__"}
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if not skipped & set(path.relative_to(ROOT).parts)]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_over_400_lines() -> None:
    assert {str(path.relative_to(ROOT)): size for path in sources(FOLDERS) if (size := lines(path)) > MAX_FILE} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_over_60_lines(folder: str) -> None:
    long = []
    for path in sources((folder,)):
        for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > MAX_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {size} lines")
    assert not long, "\n".join(long)


def test_typical_file_stays_small() -> None:
    median = statistics.median(size for path in sources(SHIPPED) if (size := lines(path)) > 5)
    assert median <= MAX_MEDIAN, f"the median source file has {median:.0f} lines, at most {MAX_MEDIAN} are meant"
