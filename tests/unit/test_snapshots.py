"""When snapshots are written, what is in them, and what comes back: a service whose workers are made up."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mlserve.core.model import ModelKey, ModelSpec
from mlserve.core.service import InferenceService
from mlserve.errors import ArchiveError, ModelExists, ServeError, VersionInUse, WorkerStartError
from mlserve.settings import Settings, load_settings
from mlserve.settings.properties import parse_properties
from mlserve.settings.snapshot_files import newest_snapshot
from mlserve.snapshots import InvalidSnapshot, Snapshots, archive_name, restore_models
from mlserve.startup import load_models, startup_workers


class Pool:
    """Workers that are there at once; none can be started while ``broken``."""

    def __init__(self) -> None:
        self.target = self.live = 0
        self.broken = False

    async def scale(self, count: int) -> None:
        if self.broken:
            raise WorkerStartError("no worker")
        self.target = self.live = count

    async def stop(self, grace: float) -> None:
        pass

    def describe(self) -> list[Any]:
        return []


class Rig:
    """A store of archives called ``name-version.mar``, a service that loads them, and its snapshots."""

    def __init__(self, root: Path, **sources: Any) -> None:
        self.root = root
        flags = {
            "models.store": str(root),
            "models.snapshot_directory": str(root / "config"),
            **sources.pop("flags", {}),
        }
        self.settings: Settings = load_settings(**{"properties": [], **sources}, flags=flags)
        self.pools: dict[ModelKey, Pool] = {}
        self.seen: list[str] = []
        self.service = InferenceService(
            self,
            self,
            asyncio.get_running_loop(),
            default_versions=self.settings.default_versions,  # type: ignore[arg-type]
        )
        self.snapshots = Snapshots(self.settings, self.service, gpus=2)

    def add(self, *archives: str) -> None:
        for name in archives:
            (self.root / name).write_bytes(b"")

    def list(self) -> list[Path]:
        return sorted(self.root.glob("*.mar"))

    async def resolve(self, url: str, overrides: dict[str, Any]) -> ModelSpec:
        if url.startswith("junk"):
            raise ArchiveError(f"{url} is not a model archive")
        name, _, version = Path(url).stem.partition("-")
        count = overrides.get("min_workers", 1)
        return ModelSpec(
            ModelKey(overrides.get("model_name") or name, version or "1.0"),
            "/x",
            "h",
            url=url,
            min_workers=count,
            max_workers=overrides.get("max_workers", max(1, count)),
            provenance={"min_workers": "register" if "min_workers" in overrides else "default"},
        )

    resolve_local = resolve

    def open(self, spec: ModelSpec, events: Any) -> Pool:
        self.pools[spec.key] = Pool()
        self.pools[spec.key].broken = spec.key.name == "broken"
        return self.pools[spec.key]

    async def close(self) -> None:
        pass

    def release(self, spec: ModelSpec) -> None:
        pass

    forget = release

    def model_loading(self, name: str) -> None:
        self.seen.append(f"loading {name}")

    def model_ready(self, name: str, seconds: float) -> None:
        self.seen.append(f"ready {name}")

    def model_failed(self, name: str, error: ServeError) -> None:
        self.seen.append(f"failed {name}")

    async def start(self, *archives: str) -> None:
        for name in archives:
            await self.service.register(name, {}, loaded_at_startup=True)
        self.service.starting = False
        self.snapshots.started()

    async def restore(self) -> int:
        return await restore_models(self.service, self, self.settings, self)  # type: ignore[arg-type]

    def kinds(self) -> list[str]:
        """Of the snapshots, oldest first."""
        return [path.stem.partition("-")[2] for path in sorted((self.root / "config").glob("*.cfg"))]

    def newest(self) -> dict[str, str]:
        path = newest_snapshot(self.root / "config")
        assert path is not None
        return {entry.key: entry.value for entry in parse_properties(path.read_text("ascii"), {})}

    def models(self) -> Any:
        return json.loads(self.newest()["model_snapshot"])["models"]


def with_rig(tmp_path: Path, test: Callable[[Rig], Awaitable[None]], **sources: Any) -> None:
    async def run() -> None:
        await asyncio.wait_for(test(Rig(tmp_path, **sources)), 10)

    asyncio.run(run())


def snapshot_entry(models: Any) -> list[tuple[str, str, int]]:
    return [("model_snapshot", json.dumps({"name": "s", "modelCount": 1, "created": 1, "models": models}), 1)]


STATE = {"defaultVersion": True, "minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 100}


def test_every_change_that_succeeds_is_written_and_nothing_else(tmp_path: Path) -> None:
    async def check(rig: Rig) -> None:
        service = rig.service
        await rig.start("m.mar")
        assert rig.kinds() == ["startup"]
        await service.register("n.mar", {"min_workers": 0})
        await service.register("n-2.0.mar", {"min_workers": 1})
        await service.scale("m", min_workers=2, synchronous=True)
        await service.scale("m", min_workers=3)
        for _ in range(3):
            await asyncio.sleep(0)
        service.set_default("n", "2.0")
        await service.unregister("n", "1.0")
        assert rig.kinds() == ["startup", *["snapshot"] * 6]
        service.list_models(), service.describe("m"), service.health()
        refused: list[tuple[type[ServeError], Callable[[], Awaitable[Any]]]] = [
            (ModelExists, lambda: service.register("m.mar", {})),
            (WorkerStartError, lambda: service.register("broken.mar", {"min_workers": 1})),
            (ArchiveError, lambda: service.register("junk.mar", {})),
            (ServeError, lambda: service.scale("nope")),
            (ServeError, lambda: service.scale("m", min_workers=2, max_workers=1)),
            (ServeError, lambda: service.unregister("m", "7")),
        ]
        for error, call in refused:
            with pytest.raises(error):
                await call()
        with pytest.raises(ServeError):
            service.set_default("m", "7")
        assert len(rig.kinds()) == 7
        rig.snapshots.stopped()
        assert rig.kinds()[-1] == "shutdown"
        await service.register("late.mar", {"min_workers": 0})
        assert rig.kinds()[-1] == "shutdown"

    with_rig(tmp_path, check)


def test_snapshot_has_torchserves_keys(tmp_path: Path) -> None:
    async def check(rig: Rig) -> None:
        rig.add("m.mar", "m-2.0.mar")
        rig.settings.properties["my_own"] = "1"  # type: ignore[index]
        await rig.start("m.mar", "m-2.0.mar")
        await rig.service.scale("m", min_workers=1, synchronous=True)
        await rig.service.scale("m", "2.0", min_workers=2, max_workers=4, synchronous=True)
        common = {"batchSize": 1, "maxBatchDelay": 100, "responseTimeout": 120, "startupTimeout": 120}
        assert rig.models() == {
            "m": {
                "1.0": {"defaultVersion": True, "marName": "m.mar", "minWorkers": 1, "maxWorkers": 1}
                | common
                | {"runtimeType": "python"},
                "2.0": {"defaultVersion": False, "marName": "m-2.0.mar", "minWorkers": 2, "maxWorkers": 4}
                | common
                | {"runtimeType": "python"},
            }
        }
        newest = rig.newest()
        snapshot = json.loads(newest["model_snapshot"])
        assert (snapshot["modelCount"], list(snapshot)) == (2, ["name", "modelCount", "created", "models"])
        assert (newest["number_of_gpu"], newest["version"], newest["my_own"]) == ("2", "0.12.0", "1")
        assert (tmp_path / "config" / snapshot["name"]).is_file()

    with_rig(tmp_path, check)


def test_two_changes_in_one_millisecond_keep_their_order(tmp_path: Path) -> None:
    async def check(rig: Rig) -> None:
        rig.snapshots = Snapshots(rig.settings, rig.service, 0, now=lambda: datetime(2026, 1, 2, 3, 4, 5, 999_000))
        await rig.start()
        rig.service.starting = False
        await rig.service.register("m.mar", {"min_workers": 0})
        assert [path.name for path in sorted((tmp_path / "config").iterdir())] == [
            "20260102030405999-startup.cfg",
            "20260102030406000-snapshot.cfg",
        ]

    with_rig(tmp_path, check)


@pytest.mark.parametrize(
    ("line", "variable", "written", "mode"),
    [("in-file", "", "in-file", 0o600), ("", "in-env", "", 0o644), ("in-file", "in-env", "in-file", 0o600)],
)
def test_a_password_stays_between_its_owner_and_where_it_came_from(
    tmp_path: Path, line: str, variable: str, written: str, mode: int
) -> None:
    async def check(rig: Rig) -> None:
        await rig.start("m.mar")
        assert rig.newest().get("keystore_pass", "") == written
        assert stat.S_IMODE(newest_snapshot(tmp_path / "config").stat().st_mode) == mode

    before = os.umask(0o022)
    try:
        environ = {"MLSERVE_TLS_KEYSTORE_PASS": variable} if variable else {}
        with_rig(tmp_path, check, properties=[("keystore_pass", line, 1)] if line else [], environ=environ)
    finally:
        os.umask(before)


def test_directory_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "config").write_text("a file")

    async def check(rig: Rig) -> None:
        with caplog.at_level(logging.WARNING, "mlserve.snapshots"):
            await rig.start("m.mar")
        assert "no snapshot is written" in caplog.text

    with_rig(tmp_path, check)


def test_models_come_back_as_they_were_and_not_as_loaded_at_start(tmp_path: Path) -> None:
    models = {
        "m": {
            "1.0": {**STATE, "marName": "m.mar", "defaultVersion": False},
            "2.0": {
                **STATE,
                "marName": "m-2.0.mar",
                "minWorkers": 3,
                "maxWorkers": 4,
                "batchSize": 8,
                "maxBatchDelay": 5,
            },
        },
        "alias": {"1.0": {**STATE, "marName": "m.mar", "minWorkers": 0, "responseTimeout": 7, "runtimeType": "python"}},
    }

    async def run() -> None:
        rig = Rig(tmp_path)
        rig.settings = load_settings(properties=snapshot_entry(models), flags={"models.store": str(tmp_path)})
        rig.add("m.mar", "m-2.0.mar")
        assert await rig.restore() == 0
        (second,) = rig.service.describe("m")
        spec = second.spec
        assert (second.is_default, spec.key.version, spec.loaded_at_startup) == (True, "2.0", False)
        assert (spec.min_workers, spec.max_workers, spec.batch_size, spec.max_batch_delay_ms) == (3, 4, 8, 5.0)
        (alias,) = rig.service.describe("alias")
        assert (alias.spec.min_workers, alias.spec.response_timeout) == (0, 7.0)

    asyncio.run(run())


def test_archive_that_is_gone_is_fatal_before_anything_is_loaded(tmp_path: Path) -> None:
    models = {"m": {"1.0": {**STATE, "marName": "m.mar"}}, "z": {"1.0": {**STATE, "marName": "gone.mar"}}}

    async def run() -> None:
        rig = Rig(tmp_path)
        rig.settings = load_settings(properties=snapshot_entry(models), flags={"models.store": str(tmp_path)})
        rig.add("m.mar")
        with pytest.raises(InvalidSnapshot, match=r"archive file for model :z, version :1.0 not found in model store"):
            await rig.restore()
        assert rig.service.versions() == []

    asyncio.run(run())


def test_archive_that_became_junk_is_listed_without_workers(tmp_path: Path) -> None:
    models = {"m": {"1.0": {**STATE, "marName": "junk.mar"}}}

    async def run() -> None:
        rig = Rig(tmp_path)
        rig.settings = load_settings(properties=snapshot_entry(models), flags={"models.store": str(tmp_path)})
        rig.add("junk.mar")
        assert await rig.restore() == 0
        assert rig.service.list_models() == [("m", "junk.mar")]
        assert rig.pools[ModelKey("m", "1.0")].target == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("m.mar", "m.mar"),
        ("{store}/m.mar", "m.mar"),
        ("https://h/a/m.mar?x=1", "m.mar"),
        ("/elsewhere/m.mar", "/elsewhere/m.mar"),
    ],
)
def test_archives_are_named_by_their_place_in_the_store(tmp_path: Path, url: str, name: str) -> None:
    (tmp_path / "m.mar").write_bytes(b"")
    assert archive_name(url.format(store=tmp_path), str(tmp_path)) == name


def test_default_version_of_the_configuration_counts_when_it_loads(tmp_path: Path) -> None:
    async def run() -> None:
        rig = Rig(tmp_path)
        rig.service = InferenceService(rig, rig, asyncio.get_running_loop(), default_versions={"m": "2.0"})  # type: ignore[arg-type]
        await rig.start("m.mar", "m-2.0.mar", "m-3.0.mar")
        assert rig.service.find("m").key.version == "2.0"

    asyncio.run(run())


def test_two_archives_of_one_version_do_not_start_by_luck(tmp_path: Path) -> None:
    async def check(rig: Rig) -> None:
        rig.add("m-1.0.mar", "m.mar")
        with pytest.raises(ModelExists):
            await load_models(rig.service, rig, rig.settings, 0, rig)  # type: ignore[arg-type]

    with_rig(tmp_path, check, flags={"models.load": "ALL"})


def test_bad_model_does_not_keep_the_others_from_starting(tmp_path: Path) -> None:
    async def check(rig: Rig) -> None:
        assert await load_models(rig.service, rig, rig.settings, 0, rig) == 1  # type: ignore[arg-type]
        assert [name for name, _ in rig.service.list_models()] == ["a", "b"]
        assert "failed junk" in rig.seen
        assert "ready a" not in rig.seen, "its workers are still starting"

    with_rig(tmp_path, check, flags={"models.load": "a.mar,junk.mar,b=m.mar"})


@pytest.mark.parametrize(
    ("flags", "gpus", "count"),
    [
        ({}, 3, 3),
        ({}, 0, 5),
        ({"defaults.workers": "2"}, 3, 2),
        ({"defaults.workers": "2", "defaults.startup_workers": "1"}, 3, 1),
        ({"defaults.workers_without_gpu": "4"}, 0, 4),
    ],
)
def test_workers_of_a_start_are_torchserves(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, str], gpus: int, count: int
) -> None:
    monkeypatch.setattr("mlserve.startup.available_cpus", lambda: 5.5)
    environ = {f"MLSERVE_{key.replace('.', '_').upper()}": value for key, value in flags.items()}
    assert startup_workers(load_settings(properties=[], environ=environ), gpus) == count


def test_default_version_that_others_depend_on_is_not_told_as_removed(tmp_path: Path) -> None:
    async def check(rig: Rig) -> None:
        await rig.start("m.mar", "m-2.0.mar")
        with pytest.raises(VersionInUse):
            await rig.service.unregister("m", "1.0")
        assert rig.kinds() == ["startup"]

    with_rig(tmp_path, check)
