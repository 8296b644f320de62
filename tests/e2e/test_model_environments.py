"""A model with packages of its own, from packing it to asking it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.server import command, launched, running
from support.wheels import slow_project, wheel

BIRD = "mlserve_test_bird"
CODE = f"""
import sys

import {BIRD}


def handle(data, context):
    return data and [f"{{{BIRD}.song}} {{sys.prefix}}"] * len(data)
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a handler and its requirements, and an index of one package."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "handler.py").write_text(CODE)
    (folder / "requirements.txt").write_text(f"{BIRD}==1.0\n")
    wheel(tmp_path / "index", BIRD, "1.0", "song = 'tweet'\n")
    monkeypatch.setenv("UV_OFFLINE", "1")  # it has no variable for --no-index
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return folder


def archive(sources: Path, store: Path, *flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    words = ["archive", "--model-name", "bird", "--version", "1.0", "--handler", "handler.py", "--force"]
    words += ["--requirements-file", "requirements.txt", "--export-path", str(store), *flags]
    store.mkdir(exist_ok=True)
    env = {**os.environ, **{f"MLSERVE_{name}": value for name, value in settings.items()}}
    return subprocess.run([*command(), *words], cwd=sources, env=env, capture_output=True, text=True, check=False)


def test_an_environment_built_with_the_archive_is_the_one_that_an_offline_server_runs(
    sources: Path, tmp_path: Path
) -> None:
    cache, store = tmp_path / "environments", tmp_path / "store"
    done = archive(sources, store, "--build-env", MODELS_ENVIRONMENT_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert "is ready" in done.stderr
    settings = {"MODELS_ENVIRONMENT_CACHE": cache, "WORKERS_INSTALL_REQUIREMENTS": "true"}
    (tmp_path / "index").rename(tmp_path / "gone")
    words = ["validate", str(store / "bird.mar"), "-d", "1"]
    env = {**os.environ, **{f"MLSERVE_{name}": str(value) for name, value in settings.items()}}
    checked = subprocess.run([*command(), *words], env=env, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with running(tmp_path / "run", "bird.mar", store=store, settings=settings, args=["--offline"]) as server:
        song, prefix = server.predict("bird", b"x").body.decode().split()
        assert song == "tweet"
        assert Path(prefix).parent == cache
        assert "is there, in" in server.log_text()


def test_an_environment_that_cannot_be_built_stops_packing_and_starting_with_the_installers_words(
    sources: Path, tmp_path: Path
) -> None:
    cache, store = tmp_path / "environments", tmp_path / "store"
    (sources / "requirements.txt").write_text("mlserve_test_unicorn==9\n")
    done = archive(sources, store, "--build-env", MODELS_ENVIRONMENT_CACHE=str(cache))
    assert done.returncode == 1
    assert "unicorn" in done.stderr
    assert "Traceback" not in done.stderr
    assert archive(sources, store, "--build-env", MODELS_ENVIRONMENT_CACHE="").returncode == 1
    settings = {"MODELS_ENVIRONMENT_CACHE": cache, "WORKERS_INSTALL_REQUIREMENTS": "true"}
    with launched(tmp_path / "run", "bird.mar", store=store, settings=settings) as server:
        assert server.wait() != 0
        assert "cannot be built" in server.log_text()
        assert "unicorn" in server.log_text()


def test_a_server_that_is_stopped_while_it_builds_ends_at_once_and_leaves_nothing(
    sources: Path, tmp_path: Path
) -> None:
    cache, store, begun = tmp_path / "environments", tmp_path / "store", tmp_path / "begun"
    slow_project(sources / "lib" / "slow", begun)
    (sources / "requirements.txt").write_text("./slow\n")
    assert archive(sources, store, "--extra-files", "lib").returncode == 0
    settings = {"MODELS_ENVIRONMENT_CACHE": cache, "WORKERS_INSTALL_REQUIREMENTS": "true"}
    with launched(tmp_path / "run", "bird.mar", store=store, settings=settings) as server:
        server.wait_for(lambda: begun.is_file() and begun.read_text(), 40)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 15, server.log_text()
    assert [path.name for path in cache.iterdir()] == ["resolved"]
    assert {path.suffix for path in (cache / "resolved").iterdir()} == {".lock"}
