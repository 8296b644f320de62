"""build_backend.py: which build is made of what is asked for and what is there, and what is said of it. That the
compiled one can be made is for scripts/test-compiled to show, which takes a minute."""

import importlib.util
import os
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mlserve import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
OTHERS = [
    "prepare_metadata_for_build_wheel",
    "get_requires_for_build_editable",
    "prepare_metadata_for_build_editable",
    "build_editable",
    "get_requires_for_build_sdist",
    "build_sdist",
]


class Setuptools(types.ModuleType):
    """Stands for setuptools and its ``build_meta``: notes what each call is told; compiling may fail."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__("setuptools")
        self.build_meta, self.fails = self, fails
        self.told: list[tuple[str, str]] = []
        for name in ("get_requires_for_build_wheel", "build_wheel", *OTHERS):
            setattr(self, name, lambda *_, name=name: self.note(name))

    def note(self, name: str) -> object:
        compiled = os.environ["MLSERVE_COMPILE"]
        self.told.append((compiled, os.environ["MLSERVE_NOT_COMPILED"]))
        if self.fails and compiled == "1":
            raise SystemExit("a type\nis wrong")
        return ["setuptools' own"] if name.startswith("get_") else "made"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module with the variable as given, on a machine that has what is to be there."""

    def load(wish: str | None, *, compiler: bool = True, header: bool = True, mypyc: bool = True, fails: bool = False):
        stands = Setuptools(fails=fails)
        monkeypatch.setitem(sys.modules, "setuptools", stands)
        spec = importlib.util.spec_from_file_location("build_backend", ROOT / "build_backend.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if header:
            (tmp_path / "Python.h").touch()
        monkeypatch.setattr(module, "find_spec", lambda name: mypyc or None)
        monkeypatch.setattr(module.sysconfig, "get_path", lambda name: str(tmp_path))
        monkeypatch.setenv("CC", sys.executable if compiler else "/nonexistent/cc")
        monkeypatch.delenv("MLSERVE_COMPILE", raising=False)
        if wish is not None:
            monkeypatch.setenv("MLSERVE_COMPILE", wish)
        return module, stands

    return load


@pytest.mark.parametrize("wish", [None, "", "1"])
def test_wheel_is_compiled_where_that_can_be_done(backend: Any, wish: str | None) -> None:
    module, setuptools = backend(wish)
    assert module.get_requires_for_build_wheel() == ["setuptools' own", *module.COMPILING]
    setuptools.told.clear()
    assert module.build_wheel("folder") == "made"
    assert setuptools.told == [("1", "")]


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ({"compiler": False}, "there was no C compiler (/nonexistent/cc)"),
        ({"header": False}, "Python's headers were missing ("),
    ],
)
def test_machine_without_a_compiler_gets_a_pure_wheel_that_says_why(
    backend: Any, missing: dict[str, bool], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module, setuptools = backend(None, **missing)
    assert module.get_requires_for_build_wheel() == ["setuptools' own"]
    setuptools.told.clear()
    assert module.build_wheel("folder") == "made"
    ((compiled, reason),) = setuptools.told
    assert compiled == "0"
    assert reason.startswith(said)
    assert capsys.readouterr().err.splitlines() == [f"mlserve is built as pure Python: {reason}"]


def test_environment_without_mypyc_gets_a_pure_wheel_and_not_a_traceback(backend: Any) -> None:
    """``--no-build-isolation``: nothing is installed for the build."""
    module, setuptools = backend(None, mypyc=False)
    module.build_wheel("folder")
    assert setuptools.told == [("0", f"{' and '.join(module.COMPILING)} were not installed")]


def test_failed_compilation_is_followed_by_a_pure_wheel(backend: Any, capsys: pytest.CaptureFixture[str]) -> None:
    module, setuptools = backend(None, fails=True)
    assert module.build_wheel("folder") == "made"
    assert setuptools.told == [("1", ""), ("0", "compiling it failed (a type is wrong)")]
    assert capsys.readouterr().err.count("\n") == 1


def test_compiling_that_must_be_done_is_an_error_when_it_cannot(backend: Any) -> None:
    module, _ = backend("1", fails=True)
    with pytest.raises(SystemExit, match="a type"):
        module.build_wheel("folder")
    module, _ = backend("1", compiler=False)
    for hook in (module.get_requires_for_build_wheel, lambda: module.build_wheel("folder")):
        with pytest.raises(SystemExit, match="MLSERVE_COMPILE=1, but there was no C compiler"):
            hook()


def test_nothing_is_compiled_or_installed_for_it_when_told_so(backend: Any) -> None:
    module, setuptools = backend("0")
    assert module.get_requires_for_build_wheel() == ["setuptools' own"]
    module.build_wheel("folder")
    assert {compiled for compiled, _ in setuptools.told} == {"0"}
    assert setuptools.told[-1][1] == "it was built with MLSERVE_COMPILE=0"


@pytest.mark.parametrize("wish", [None, "1"])
@pytest.mark.parametrize("hook", OTHERS)
def test_editable_install_and_source_distribution_are_never_compiled(backend: Any, hook: str, wish: str | None) -> None:
    """Compiled modules beside sources that are edited would go on as they were."""
    module, setuptools = backend(wish)
    made = getattr(module, hook)(*["folder"] * (not hook.startswith("get_")))
    assert made == (["setuptools' own"] if hook.startswith("get_") else "made")
    assert setuptools.told == [("0", "")]


def test_any_other_wish_is_refused(backend: Any) -> None:
    module, _ = backend("yes")
    with pytest.raises(SystemExit, match="MLSERVE_COMPILE=yes is neither 0"):
        module.build_wheel("folder")


def test_what_compiles_is_what_checks_the_types(backend: Any) -> None:
    """scripts/check with another mypy would pass what cannot be compiled."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    mypy, msgspec = backend(None)[0].COMPILING
    assert mypy in project["optional-dependencies"]["dev"]
    assert msgspec in project["dependencies"]


def test_install_without_a_compiler_is_pure_and_tells_its_reason(tmp_path: Path) -> None:
    """The whole way through pip and setuptools; needs the package index."""
    before = {path.name for path in ROOT.iterdir()}
    environment = {**os.environ, "MLSERVE_COMPILE": "", "CC": "/nonexistent/cc"}
    command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    reason = "there was no C compiler (/nonexistent/cc)"
    assert (done.stdout + done.stderr).count(f"mlserve is built as pure Python: {reason}") == 1
    built = tmp_path / f"mlserve-{__version__}-py3-none-any.whl"
    target = tmp_path / "installed"
    zipfile.ZipFile(built).extractall(target)
    assert not [*target.rglob("*.so")]
    code = "from mlserve.build import described; print(described())"
    path = {**os.environ, "PYTHONPATH": str(target)}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path, cwd="/")
    assert told.stdout == f"pure Python: {reason}\n"
    assert {"build", "mlserve.egg-info"}.isdisjoint({path.name for path in ROOT.iterdir()} - before), (
        "left by the build"
    )
