"""The commands that people and CI run: they are runnable, they agree, and they pin what must be pinned."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVERY = [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]
SCRIPTS = sorted(path for path in EVERY if path.is_file() and "." not in path.name)
RUNNABLE = [path for path in SCRIPTS if not path.name.startswith("_env")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_has_no_syntax_error(script: Path) -> None:
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", RUNNABLE, ids=lambda path: path.name)
def test_script_is_executable_and_stays_short(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert len(text.splitlines()) <= 60


def test_ci_runs_the_scripts_that_people_run() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "\nscripts/check" in text
    assert "\nscripts/test\n" in text
    assert "\nscripts/test-models\n" in text
    assert "\nscripts/test-compiled\n" in text
    assert "pytest " not in re.sub(r"#.*", "", text), "CI must not have a test command of its own"


def test_heavy_tests_are_run_by_their_own_script_and_by_no_other(pytestconfig: pytest.Config) -> None:
    """``scripts/test`` has none of those packages, and is to stay under five minutes."""
    assert "tests/models" in pytestconfig.getini("norecursedirs")
    assert "set -- tests/models" in (ROOT / "scripts" / "test-models").read_text(encoding="utf-8")


def test_torch_is_never_installed_unpinned() -> None:
    """An unpinned torch takes the newest CUDA build, several gigabytes."""
    for script in SCRIPTS:
        for line in re.sub(r"#.*", "", script.read_text(encoding="utf-8")).splitlines():
            assert not re.search(r"install\b.*\btorch\b(?!==)", line.replace("torch-model-archiver", "")), line


def test_a_variable_that_names_an_environment_does_not_reach_servers(tmp_path: Path) -> None:
    """A server takes each ``MLSERVE_`` variable for a setting, and refuses those that are none."""
    text = (ROOT / "scripts" / "_env_models").read_text(encoding="utf-8").replace('source "', 'true "')
    (tmp_path / "_env_models").write_text(text)
    command = ["bash", "-c", f". {tmp_path / '_env_models'}; env"]
    environ = {"PATH": "/usr/bin:/bin", "MLSERVE_MODELS_VENV": "/x"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=True)
    assert "MLSERVE_" not in done.stdout


def test_every_script_is_in_the_table() -> None:
    text = (ROOT / "scripts" / "README.md").read_text(encoding="utf-8")
    missing = [path.name for path in RUNNABLE if path.parent.name == "scripts" and f"scripts/{path.name}" not in text]
    assert not missing


def test_scripts_test_ends_with_the_runner_s_closing_line(tmp_path: Path) -> None:
    """Whoever reads the last line of the output, a person or CI, reads how many tests passed."""
    test = tmp_path / "test_one.py"
    test.write_text("def test_one():\n    pass\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [ROOT / "scripts" / "test", str(test), "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "-c", os.devnull],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"1 passed in [\d.]+s", done.stdout.rstrip().splitlines()[-1])


def test_unknown_benchmark_is_refused_with_the_usage() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "bench", "nonsense"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 2
    assert "usage" in done.stderr
