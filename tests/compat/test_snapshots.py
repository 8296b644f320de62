"""Snapshots: what is written when, what a restart without a settings file brings back, and what ``--ncs`` means."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from support.drop_in import DropIn, drop_in

from mlserve.settings.properties import read_properties

from .conftest import OPEN, make_store

SETTINGS = {**OPEN, "load_models": "bare.mar", "my_own": "kept", "default_response_timeout": "33"}
CALLS = [  # and how many snapshots each writes
    ("POST", "/models?url=klass.mar&initial_workers=0&batch_size=4&max_batch_delay=40", 1),
    ("POST", "/models?url=noop.mar&initial_workers=1&synchronous=true&response_timeout=44", 1),
    ("POST", "/models?url=noopv2.mar&initial_workers=0", 1),
    ("PUT", "/models/noop/1.2.1/set-default", 1),
    ("PUT", "/models/noop/1.2.1?min_worker=2&synchronous=true", 1),
    ("PUT", "/models/noop/1.2.1?min_worker=1", 1),
    ("PUT", "/models/noop/1.2.1?min_worker=2&max_worker=1", 0),
    ("PUT", "/models/noop/9.9/set-default", 0),
    ("GET", "/models/noop", 0),
    ("DELETE", "/models/nobody", 0),
    ("GET", "/models", 0),
    ("DELETE", "/models/noop/9.9", 0),
    ("PUT", "/models/nobody?min_worker=1&synchronous=true", 0),
    ("PUT", "/models/noop/9.9?min_worker=1&synchronous=true", 0),
    ("POST", "/models?url=noop.mar", 0),
    ("POST", "/models?url=gone.mar", 0),
    ("POST", "/models?url=noop.mar&model_name=zero&initial_workers=0", 1),
    ("DELETE", "/models/zero", 1),
    ("DELETE", "/models/bare", 1),
]
ONE = {
    "maxBatchDelay": 100,
    "batchSize": 1,
    "minWorkers": 1,
    "maxWorkers": 1,
    "responseTimeout": 33,
    "startupTimeout": 120,
    "runtimeType": "python",
}
MODELS = {
    "noop": {
        "1.11": {**ONE, "defaultVersion": False, "marName": "noop.mar", "responseTimeout": 44},
        "1.2.1": {**ONE, "defaultVersion": True, "marName": "noopv2.mar"},
    },
    "klass": {
        "1.0": {
            **ONE,
            "defaultVersion": True,
            "marName": "klass.mar",
            "minWorkers": 0,
            "maxWorkers": 0,
            "batchSize": 4,
            "maxBatchDelay": 40,
        }
    },
}


def written(directory: Path) -> list[Path]:
    return sorted((directory / "logs" / "config").glob("*.cfg"))


def kinds(directory: Path, count: int = 0) -> list[str]:
    """The kinds of snapshots in order, as soon as there are ``count``: an answer may come before its snapshot."""
    until = time.monotonic() + 10
    while len(written(directory)) < count and time.monotonic() < until:
        time.sleep(0.05)
    return [path.stem.partition("-")[2] for path in written(directory)]


@pytest.fixture(scope="module")
def first(against: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[DropIn, list[tuple[str, int]]]:
    """A server that has lived and ended, and how many snapshots each call added."""
    directory = tmp_path_factory.mktemp("server")
    added = []
    with drop_in(against, directory, make_store(directory / "store"), SETTINGS, snapshots=True) as server:
        assert kinds(directory, 1) == ["startup"]
        for method, path, expected in CALLS:
            before = len(written(directory))
            server.manage(method, path)
            added.append((path, len(kinds(directory, before + expected)) - before))
        server.ask("POST", "/predictions/noop", "x")
    return server, added


def test_each_change_that_succeeds_writes_one_and_nothing_else_does(
    first: tuple[DropIn, list[tuple[str, int]]],
) -> None:
    server, added = first
    assert added == [(path, expected) for _, path, expected in CALLS]
    changes = sum(expected for _, _, expected in CALLS)
    assert kinds(server.directory) == ["startup", *["snapshot"] * changes, "shutdown"]


def test_a_snapshot_is_the_whole_configuration_with_the_models(first: tuple[DropIn, list[tuple[str, int]]]) -> None:
    server, _ = first
    path = written(server.directory)[-1]
    values = {key: value for key, value, _ in read_properties(path, {})}
    expected = {
        **SETTINGS,
        "version": "0.12.0",
        "number_of_gpu": "0",
        "model_store": str(server.store),
        "tsConfigFile": str(server.directory / "config.properties"),
        "inference_address": f"http://127.0.0.1:{server.ports['inference']}",
    }
    assert {key: values.get(key) for key in expected} == expected
    assert Path(values["python"]).name.startswith("python")
    snapshot = json.loads(values["model_snapshot"])
    assert set(snapshot) == {"name", "modelCount", "created", "models"}
    assert (snapshot["name"], snapshot["modelCount"]) == (path.name, 3)
    assert abs(snapshot["created"] / 1000 - path.stat().st_mtime) < 5
    assert snapshot["models"] == MODELS


def test_lives_after_the_first(first: tuple[DropIn, list[tuple[str, int]]], against: str) -> None:
    """In order, because each finds what the one before left behind."""
    server, _ = first
    directory, store = server.directory, server.store
    before = len(written(directory))
    with drop_in(against, directory, store, None, "--models", "unpacked", snapshots=True, again=server) as restored:
        check_models(restored)
        assert kinds(directory, before + 1)[before:] == ["startup"]
        assert restored.ask("POST", "/predictions/noop", "x").status == 200
    last = written(directory)[-1]
    with drop_in(against, directory, store, None, "--ts-config", str(last), again=server) as named:
        check_models(named)
    before = len(written(directory))
    with drop_in(against, directory, store, again=server) as without:
        models = without.manage("GET", "/models").json()["models"]
        assert models == [{"modelName": "bare", "modelUrl": "bare.mar"}]  # of config.properties
    assert len(written(directory)) == before

    (store / "klass.mar").unlink()
    with (
        pytest.raises(pytest.fail.Exception, match=r"klass, version :1\.0 not found in model store"),
        drop_in(against, directory, store, snapshots=True, again=server),
    ):
        pass


def check_models(server: DropIn) -> None:
    """What is served is what was served, but for the workers, which may still be starting."""
    models = {one["modelName"]: one["modelUrl"] for one in server.manage("GET", "/models").json()["models"]}
    assert models == {"noop": "noopv2.mar", "klass": "klass.mar"}
    for name, versions in MODELS.items():
        described = {one["modelVersion"]: one for one in server.manage("GET", f"/models/{name}/all").json()}
        assert set(described) == set(versions)
        for version, state in versions.items():
            keys = state.keys() - {"defaultVersion", "marName", "runtimeType"}
            assert {key: described[version][key] for key in keys} == {key: state[key] for key in keys}
            assert described[version]["loadedAtStartup"] is False
