"""A server that is stopped and comes back: what it served is served again, from files that TorchServe could read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.server import HANDLERS, LiveServer, launched, running

from mlserve.archive import pack

CONFIG = "disable_token_authorization=true\nenable_model_api=true\nmy_own=kept\ndefault_workers_per_model=1\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    directory = tmp_path / "store"
    directory.mkdir()
    shutil.copy(HANDLERS / "echo.py", tmp_path)
    for version in ("1.0", "2.0"):
        archive = pack(
            model_name="echo", version=version, handler=str(tmp_path / "echo.py"), export_path=tmp_path, force=True
        )
        shutil.move(archive, directory / f"echo-{version}.mar")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.properties").write_text(CONFIG)
    return directory


def kinds(run: Path) -> list[str]:
    return [path.stem.partition("-")[2] for path in sorted((run / "logs" / "config").glob("*.cfg"))]


def check_restored(server: LiveServer) -> None:
    server.wait_for(lambda: len(server.worker_pids("echo")) == 2)
    described = server.describe("echo")
    assert (described["modelVersion"], described["minWorkers"], described["loadedAtStartup"]) == ("2.0", 2, False)
    versions = {one["modelVersion"]: one["minWorkers"] for one in server.manage("GET", "/models/echo/all")}
    assert versions == {"1.0": 0, "2.0": 2}
    assert server.predict("echo", b"again").body == b"again"


def test_what_was_served_is_served_again(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with running(run, store=store, args=["--ts-config", "config.properties"]) as server:
        assert kinds(run) == ["startup"]
        server.manage("POST", "/models?url=echo-1.0.mar&initial_workers=0")
        server.manage("POST", "/models?url=echo-2.0.mar&initial_workers=1&synchronous=true")
        server.manage("PUT", "/models/echo/2.0/set-default")
        server.manage("PUT", "/models/echo/2.0?min_worker=2&synchronous=true")
        server.request("DELETE", "/models/nobody", api="management")
        server.manage("GET", "/models")
        assert kinds(run) == ["startup", *["snapshot"] * 4]
    snapshots = sorted((run / "logs" / "config").glob("*.cfg"))
    assert snapshots[-1].name.endswith("-shutdown.cfg")
    assert "\nmy_own=kept\n" in snapshots[-1].read_text()

    snapshots[-1].chmod(0o444)
    arguments = ["--ts-config", str(snapshots[-1])]
    with running(run, "nothing.mar", store=store, args=arguments) as server:
        check_restored(server)
    with running(run, store=store, args=["--profile", "torchserve", "--no-tokens"]) as server:
        check_restored(server)
        assert "models come from the snapshot" in server.log_text()

    (store / "echo-1.0.mar").unlink()
    with launched(run, store=store, args=arguments) as server:
        assert server.wait() == 1
        text = server.log_text()
        assert "Model archive file for model :echo, version :1.0 not found in model store" in text
        server.check_nothing_left()


def test_no_snapshots_means_neither_written_nor_restored(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["--ts-config", "config.properties", "--no-snapshots"]
    with running(run, "echo=echo-2.0.mar", store=store, args=arguments) as server:
        server.wait_for(lambda: len(server.worker_pids("echo")) == 1)
        assert server.describe("echo")["loadedAtStartup"] is True
    assert kinds(run) == []


def test_snapshots_of_a_toml_configuration_bring_the_models_back(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "mlserve.toml").write_text("[models]\nsnapshots = true\n[defaults]\nbatch_size = 3\n")
    with running(run, "echo-1.0.mar", store=store):
        pass
    with running(run, store=store) as server:
        described = server.describe("echo")
        assert (described["modelVersion"], described["loadedAtStartup"]) == ("1.0", False)
        assert server.predict("echo", b"again").body == b"again"
