"""Environments of models: one for all that need the same, whole or not there, and nothing from the network unasked."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support.wheels import slow_project, wheel

from mlserve.archive.environments import LOCK_NAME, EnvironmentCache
from mlserve.archive.needs import read_needs
from mlserve.archive.requirements import Installing, prepare
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.errors import ErrorKind, InvalidInput, ServeError

BIN = Path(sys.executable).parent
BIRD, NEST = "mlserve_test_bird", "mlserve_test_nest"


@pytest.fixture(params=["uv", "pip"])
def tool(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either installer, with an index of two packages and nothing else."""
    index = tmp_path / "index"
    wheel(index, BIRD, "1.0", "song = 'old'\n")
    wheel(index, BIRD, "2.0", f"import {NEST}\nsong = 'tweet'\ndef main(): print(song)\n", NEST, script=True)
    wheel(index, NEST, "1.0", "eggs = 3\n")
    for name, alone in (("PIP", "PIP_NO_INDEX"), ("UV", "UV_OFFLINE")):  # uv has no variable for --no-index
        monkeypatch.setenv(alone, "1")
        monkeypatch.setenv(f"{name}_FIND_LINKS", str(index))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("PATH", f"{BIN}:/usr/bin:/bin" if request.param == "uv" else "/usr/bin:/bin")
    return str(request.param)


ONCE = pytest.mark.parametrize("tool", ["uv"], indirect=True)  # what does not depend on the installer


@pytest.fixture
def cache(tmp_path: Path) -> EnvironmentCache:
    return EnvironmentCache(tmp_path / "environments")


def model(tmp_path: Path, requirements: str, name: str = "m") -> ModelSpec:
    directory = tmp_path / f"model-{name}-{len(list(tmp_path.iterdir()))}"
    directory.mkdir()
    (directory / "requirements.txt").write_text(requirements)
    manifest = {"model": {"requirementsFile": "requirements.txt"}}
    return ModelSpec(ModelKey(name, "1.0"), str(directory), "h.py", manifest=manifest)


def prepared(spec: ModelSpec, cache: EnvironmentCache, stop: threading.Event | None = None) -> str:
    return prepare(spec, Path(spec.model_dir), Installing(True, cache), stop).python


def song(python: str) -> str:
    code = f"import sys, {BIRD}, msgspec; print({BIRD}.song)"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def left(cache: EnvironmentCache) -> set[str]:
    """What is in the cache besides lock files."""
    found = [path for path in cache.folder.iterdir() if path.suffix != ".lock"]
    return {path.name for path in found} | {path.name for path in (cache.folder / "resolved").glob("*.part")}


def test_a_worker_gets_packages_that_the_server_has_not(
    tool: str, tmp_path: Path, cache: EnvironmentCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlserve")
    python = prepared(model(tmp_path, BIRD), cache)
    assert song(python) == "tweet", "the server's own packages (msgspec) are seen as well"
    home = Path(python).parents[1]
    assert home.parent == cache.folder
    pins = {line.replace("_", "-").lower() for line in (home / LOCK_NAME).read_text().split()}
    assert pins == {"mlserve-test-bird==2.0", "mlserve-test-nest==1.0"}
    script = subprocess.run([home / "bin" / BIRD], capture_output=True, text=True, check=True)
    assert script.stdout == "tweet\n", "scripts name the environment by the path that it has in the end"
    assert f"model m:1.0: environment {home.name}: building it with {tool}, 2 packages" in caplog.text
    assert left(cache) == {"resolved", home.name}
    assert subprocess.run([sys.executable, "-c", f"import {BIRD}"], capture_output=True, check=False).returncode == 1


@ONCE
def test_the_same_needs_are_one_environment_and_built_once_without_an_index(
    tool: str, tmp_path: Path, cache: EnvironmentCache
) -> None:
    first = prepared(model(tmp_path, f"{BIRD}\n"), cache)
    shutil.rmtree(tmp_path / "index")
    assert prepared(model(tmp_path, f"# a comment\n\n{BIRD}", "other"), cache) == first
    wheel(tmp_path / "index", NEST, "1.0", "")
    with pytest.raises(InvalidInput):
        prepared(model(tmp_path, f"{BIRD}>1"), cache)
    wheel(tmp_path / "index", BIRD, "2.0", "", NEST)
    assert prepared(model(tmp_path, f"{BIRD}>1"), cache) == first, "said otherwise, and the same in the end"
    wheel(tmp_path / "index", BIRD, "1.0", "song = 'old'\n")
    assert song(prepared(model(tmp_path, f"{BIRD}<2"), cache)) == "old"


def test_a_package_that_is_not_there_refuses_the_model_with_the_installers_words(
    tool: str, tmp_path: Path, cache: EnvironmentCache
) -> None:
    with pytest.raises(
        InvalidInput, match=r"Model m: the environment for requirements.txt cannot be built: .+"
    ) as caught:
        prepared(model(tmp_path, "mlserve_test_unicorn==9"), cache)
    assert "unicorn" in caught.value.message
    assert "unicorn" in caught.value.detail
    assert left(cache) == {"resolved"}


def test_offline_takes_wheels_of_the_archive_and_else_says_what_is_missing(
    tool: str, tmp_path: Path, cache: EnvironmentCache
) -> None:
    offline = EnvironmentCache(cache.folder, offline=True)
    with pytest.raises(InvalidInput, match=r"the archive holds no wheels, and models\.offline"):
        prepared(model(tmp_path, BIRD), offline)
    built = prepared(model(tmp_path, BIRD), cache)
    assert prepared(model(tmp_path, BIRD), offline) == built, "what the cache has is there offline too"
    spec = model(tmp_path, f"{BIRD}\n")
    wheel(Path(spec.model_dir, "wheels"), BIRD, "3.0", "song = 'from the archive'\n")
    assert song(prepared(spec, offline)) == "from the archive"
    Path(spec.model_dir, "requirements.txt").write_text("x @ https://127.0.0.1:1/x.whl")
    with pytest.raises(InvalidInput, match="names another place: x @ https"):
        prepared(spec, offline)
    other = model(tmp_path, f"./{BIRD}-3.0-py3-none-any.whl")
    wheel(Path(other.model_dir), BIRD, "3.0", "song = 'by its path'\n")
    assert song(prepared(other, offline)) == "by its path", "the same name and version, other content"


def test_packages_of_the_same_version_from_elsewhere_are_not_taken_for_the_same(
    tool: str, tmp_path: Path, cache: EnvironmentCache
) -> None:
    private = tmp_path / "private"
    wheel(private, NEST, "1.0", "eggs = 7\n")
    public = prepared(model(tmp_path, NEST), cache)
    file = tmp_path / "index" / f"{NEST}-1.0-py3-none-any.whl"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    hashed = prepared(model(tmp_path, f"{NEST}==1.0 --hash=sha256:{digest}"), cache)
    with pytest.raises(InvalidInput, match="sha256"):
        prepared(model(tmp_path, f"{NEST}==1.0 --hash=sha256:{digest[::-1]}"), cache)
    file.unlink()
    other = prepared(model(tmp_path, f"--find-links {private}\n{NEST}"), cache)
    assert len({public, hashed, other}) == 3
    assert subprocess.run([other, "-c", f"import {NEST}; print({NEST}.eggs)"], capture_output=True).stdout == b"7\n"


@ONCE
def test_two_servers_build_it_once_and_never_take_a_half_built_one(
    tool: str, tmp_path: Path, cache: EnvironmentCache
) -> None:
    said: list[str] = []

    def build(_: int) -> Path:
        other = EnvironmentCache(cache.folder)
        return other.python_for("m", needs, said.append)

    needs = read_needs(Path(model(tmp_path, BIRD).model_dir), "requirements.txt")
    with ThreadPoolExecutor(3) as pool:
        pythons = set(pool.map(build, range(3)))
    assert len(pythons) == 1
    assert sum("building it with" in line for line in said) == 1
    assert song(str(pythons.pop())) == "tweet"


def eventually(true: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def slow_model(tmp_path: Path) -> ModelSpec:
    spec = model(tmp_path, "./slow")
    slow_project(Path(spec.model_dir, "slow"), tmp_path / "begun")
    return spec


def test_an_interrupted_build_ends_at_once_and_leaves_nothing(
    tool: str, tmp_path: Path, cache: EnvironmentCache
) -> None:
    stop, begun = threading.Event(), tmp_path / "begun"
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(prepared, slow_model(tmp_path), cache, stop)
        eventually(lambda: begun.is_file() and bool(begun.read_text()))
        stop.set()
        with pytest.raises(ServeError, match="was cancelled") as caught:
            future.result(timeout=20)
    assert caught.value.kind is ErrorKind.CANCELLED
    assert left(cache) == {"resolved"}
    eventually(lambda: not Path("/proc", begun.read_text(), "exe").exists())


@ONCE
def test_what_a_killed_build_left_is_removed_by_the_next_one_and_never_used(
    tool: str, tmp_path: Path, cache: EnvironmentCache
) -> None:
    home = Path(prepared(model(tmp_path, BIRD), cache)).parents[1]
    remains = cache.folder / f".building-{home.name}-0123abcd"
    home.rename(remains)
    (cache.folder / ".building-ffff-0123abcd").mkdir()
    assert song(prepared(model(tmp_path, BIRD), cache)) == "tweet"
    assert left(cache) == {"resolved", home.name}


@ONCE
def test_an_environment_whose_interpreter_is_gone_is_built_again(
    tool: str, tmp_path: Path, cache: EnvironmentCache
) -> None:
    python = Path(prepared(model(tmp_path, BIRD), cache))
    python.unlink()
    python.symlink_to(tmp_path / "removed")
    assert song(prepared(model(tmp_path, BIRD), cache)) == "tweet"


@ONCE
def test_what_cannot_be_shared_or_kept_is_refused_by_name(tool: str, tmp_path: Path) -> None:
    cache = EnvironmentCache(tmp_path / "environments")
    with pytest.raises(InvalidInput, match="without --editable"):
        prepared(model(tmp_path, "-e ./here"), cache)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match=r"models\.environment_cache"):
        prepared(model(tmp_path, BIRD), EnvironmentCache(tmp_path / "file" / "environments"))
    spec = replace(model(tmp_path, BIRD), python=sys.executable)
    assert prepared(spec, cache) == sys.executable, "an interpreter of the operator's choice stays"


@ONCE
def test_the_folder_is_not_left_open_to_others_who_could_put_code_into_it(
    tool: str, tmp_path: Path, cache: EnvironmentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0)
    try:
        prepared(model(tmp_path, ""), cache)
    finally:
        os.umask(before)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    for mode in (0o770, 0o707):
        cache.folder.chmod(mode)
        with pytest.raises(InvalidInput, match=r"models\.environment_cache.* is writable for others .*chmod go-w"):
            prepared(model(tmp_path, ""), cache)
    cache.folder.chmod(0o755)
    prepared(model(tmp_path, ""), cache)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InvalidInput, match=r"models\.environment_cache.* belongs to user .*, not to 12345"):
        prepared(model(tmp_path, ""), cache)


@ONCE
def test_a_model_without_requirements_gets_an_environment_only_if_it_asks(
    tool: str, tmp_path: Path, cache: EnvironmentCache
) -> None:
    bare = replace(model(tmp_path, ""), manifest={})
    assert prepared(bare, cache) == ""
    python = prepared(replace(bare, use_venv=True), cache)
    code = "import sys, msgspec; print(sys.prefix)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).parent == cache.folder


@pytest.mark.parametrize("tool", ["pip"], indirect=True)
def test_offline_holds_for_packages_beside_the_model_too(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.delenv("PIP_NO_INDEX")
    spec, beside = replace(model(tmp_path, BIRD), owned_dir=True), Installing(True, None, offline=True)
    with pytest.raises(InvalidInput) as caught:
        prepare(spec, Path(spec.model_dir), beside)
    assert "No matching distribution" in caught.value.detail
    wheel(Path(spec.model_dir), BIRD, "3.0", "song = 'from the archive'\n")
    assert prepare(spec, Path(spec.model_dir), beside).python == ""
    assert "from the archive" in Path(spec.model_dir, f"{BIRD}.py").read_text()
