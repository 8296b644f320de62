"""Modules that were read ahead of an import are what the import would have made of them, or it does so itself."""

import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path

import pytest

from mlserve.worker.torch_import import Ahead

ROOT = "package_read_ahead"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on the path whose parts import each other in every way; forgotten again afterwards."""
    files = {
        "__init__.py": f"from . import first\nfrom {ROOT}.inner import deep\nimport {ROOT}.inner.named as other\n",
        "first.py": "VALUE = 1\nfrom .second import VALUE as TWO\n",
        "second.py": "VALUE = 2\nunused = None\ndef later():\n    from . import lazy\n",
        "unused.py": "raise AssertionError('nobody imports this')\n",
        "lazy.py": "VALUE = 3\n",
        "inner/__init__.py": "",
        "inner/deep.py": "VALUE = 4\n",
        "inner/named.py": "VALUE = 5\n",
    }
    for name, text in files.items():
        path = tmp_path / ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / ROOT
    for name in [name for name in sys.modules if name.partition(".")[0] == ROOT]:
        del sys.modules[name]


@pytest.fixture
def ahead(package: Path) -> Iterator[Ahead]:
    """What reads ahead, in its place among the finders."""
    finder = Ahead()
    sys.meta_path.insert(sys.meta_path.index(PathFinder), finder)
    yield finder
    sys.meta_path.remove(finder)


def found(ahead: Ahead) -> set[str]:
    return {name.removeprefix(f"{ROOT}.") for name in ahead._found}


def test_all_that_is_imported_is_read_ahead(ahead: Ahead) -> None:
    ahead.read(ROOT, lambda: True)
    assert {ROOT, "first", "second", "inner", "inner.deep", "inner.named"} <= found(ahead)
    importlib.import_module(ROOT)
    assert found(ahead) <= {"unused", "lazy"}


def test_modules_show_nothing_of_it(ahead: Ahead) -> None:
    ahead.read(ROOT, lambda: True)
    module = importlib.import_module(f"{ROOT}.inner.deep")
    package = importlib.import_module(ROOT)
    for one in (module, package):
        spec = one.__spec__
        assert spec is not None
        usual = PathFinder.find_spec(one.__name__, None if one is package else package.inner.__path__)
        assert usual is not None
        assert spec == usual
        assert (one.__file__, one.__cached__) == (usual.origin, usual.cached)
        assert type(one.__loader__) is SourceFileLoader
        assert "get_code" not in vars(one.__loader__)
        assert one.__loader__.get_code(one.__name__) is not None
    assert (package.first.TWO, package.other.VALUE) == (2, 5)


def test_a_module_that_is_only_named_is_not_run(ahead: Ahead) -> None:
    ahead.read(ROOT, lambda: True)
    importlib.import_module(ROOT)
    assert f"{ROOT}.unused" not in sys.modules


def test_a_package_that_looks_elsewhere_gets_what_is_there(ahead: Ahead, package: Path) -> None:
    (package / "elsewhere").mkdir()
    (package / "elsewhere" / "first.py").write_text("VALUE = 'elsewhere'\n")
    (package / "__init__.py").write_text(f"__path__[:] = [{str(package / 'elsewhere')!r}]\nfrom . import first\n")
    ahead.read(ROOT, lambda: True)
    assert "first" in found(ahead)
    assert importlib.import_module(ROOT).first.VALUE == "elsewhere"


def test_what_cannot_be_read_fails_where_it_is_imported(ahead: Ahead, package: Path) -> None:
    (package / "second.py").write_text("def broken(:\n")
    ahead.read(ROOT, lambda: True)
    with pytest.raises(SyntaxError, match=r"second\.py"):
        importlib.import_module(ROOT)


def test_nothing_is_read_when_there_is_no_time(ahead: Ahead) -> None:
    ahead.read(ROOT, lambda: False)
    assert not found(ahead)
    assert importlib.import_module(ROOT).first.VALUE == 1
