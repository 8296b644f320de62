"""`pip install mlserve` in an empty environment, without torch: the wheel holds everything, and a server with a handler
that needs no torch starts, answers and has imported none of it. Needs the package index."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from support.server import running

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numpy", "PIL", "onnxruntime", "pandas")

HANDLER = f"""
import sys

def handle(data, context):
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    return [{{"echo": row["body"].decode(), "heavy": loaded, "prefix": sys.prefix}} for row in data]
"""


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's pure wheel."""
    target = tmp_path_factory.mktemp("wheel")
    pure = {**os.environ, "MLSERVE_COMPILE": "0"}
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, ROOT, env=pure)
    (built,) = target.glob("*-py3-none-any.whl")
    return built


@pytest.fixture(scope="module")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and its core dependencies, nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", wheel)
    return python


def test_wheel_lacks_no_module_and_brings_no_other_top_level_name(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, installed in (
        ("mlserve", "mlserve"),
        ("handlers", "mlserve/handlers"),
        ("templates", "mlserve/templates"),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            assert f"{installed}/{path.relative_to(ROOT / folder).as_posix()}" in names
    assert {f"mlserve/templates/{path.name}" for path in (ROOT / "templates").iterdir() if path.is_file()} <= names
    assert "mlserve/py.typed" in names
    assert not [name for name in names if name.endswith(".so")], "compiled, with MLSERVE_COMPILE=0"
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"mlserve"}


def test_nothing_heavy_is_installed_or_needed_to_import_the_server(bare_python: Path) -> None:
    code = (
        "import importlib.util, mlserve.server, mlserve.cli;"
        f"assert not [name for name in {HEAVY!r} if importlib.util.find_spec(name)]"
    )
    run(bare_python, "-I", "-c", code)


def test_server_without_torch_answers(bare_python: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "handler.py").write_text(HANDLER, encoding="utf-8")
    with running(tmp_path / "server", "echo=handler.py", store=store, python=str(bare_python)) as server:
        answer = server.predict("echo", b"hello").json()
        assert answer["echo"] == "hello"
        assert Path(answer["prefix"]) == bare_python.parents[1], "the worker ran in another environment"
        assert answer["heavy"] == []
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert not [name for name in ("libtorch", "numpy", "PIL") if name in maps]
