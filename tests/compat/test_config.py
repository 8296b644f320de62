"""Where a setting comes from: the file, its JSON of models, the environment, the command line, the archive."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.drop_in import NOOP, OURS, DropIn, archive, drop_in, environment, write_config

from .conftest import OPEN, make_store

MODELS = {
    "klass": {
        "1.0": {
            "defaultVersion": True,
            "marName": "klass.mar",
            "minWorkers": 2,
            "maxWorkers": 2,
            "batchSize": 3,
            "maxBatchDelay": 250,
            "responseTimeout": 77,
            "startupTimeout": 66,
        }
    },
    "configured": {"1.0": {"minWorkers": 2, "maxWorkers": 2, "batchSize": 3, "maxBatchDelay": 250}},
    "entry": {"1.0": {"batchSize": 6, "maxBatchDelay": 60}},
    "noop": {"1.11": {"batchSize": 0}},
}
YAML = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 5\nresponseTimeout: 55\n"
# Wrong ones are left out, and so are wishes that this machine cannot meet.
WISHES = "deviceType: gpu\ndeviceIds: [0, 1]\nbatchSize: '4'\nmaxBatchDelay: soon\nstartupTimeout: -1\nuseVenv: 1\n"
ENVIRON = {
    "TS_JOB_QUEUE_SIZE": "7",
    "TS_ENABLE_MODEL_API": "true",
    "TS_ALLOWED_URLS": "https://nowhere/.*",
    "TS_LOAD_MODELS": "all",
    "QUEUE": "50",
    "WAIT": "33",
}


def describe(server: DropIn, path: str) -> dict[str, Any]:
    reply = server.manage("GET", f"/models/{path}")
    assert reply.status == 200, reply
    return reply.json()[0]


@pytest.fixture(scope="module")
def server(start, tmp_path_factory: pytest.TempPathFactory) -> DropIn:
    """Everything of the store is loaded, because a variable says so; the command line and the file say otherwise."""
    store = make_store(tmp_path_factory.mktemp("store"))
    archive(store, "configured", NOOP, model_config__yaml=YAML, model={"configFile": "model_config.yaml"})
    archive(store, "wishes", NOOP, model_config__yaml=WISHES, model={"configFile": "model_config.yaml"})
    archive(store, "broken", "import no_such_module_at_all\n" + NOOP)
    (store / "junk.txt").write_text("no model")
    settings = {
        "enable_envvars_config": "true",
        "enable_model_api": "false",
        "load_models": "klass.mar",
        "job_queue_size": "$$QUEUE$$",
        "default_response_timeout": "$$WAIT$$",
        "models": "\\\n".join(json.dumps(MODELS, indent=1).splitlines()),
    }
    return start(settings, "--models", "klass.mar", store=store, environ=ENVIRON)


def test_all_loads_every_archive_and_folder_of_the_store(server: DropIn) -> None:
    models = {one["modelName"] for one in server.manage("GET", "/models").json()["models"]}
    assert models - {"broken"} == {"noop", "klass", "entry", "bare", "nomanifest", "unpacked", "configured", "wishes"}
    versions = server.manage("GET", "/models/noop/all").json()
    assert {one["modelVersion"]: one["loadedAtStartup"] for one in versions} == {"1.11": True, "1.2.1": True}
    assert server.ask("POST", "/predictions/unpacked", "x").body == b"OK"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "klass",
            {
                "minWorkers": 2,
                "maxWorkers": 2,
                "batchSize": 3,
                "maxBatchDelay": 250,
                "responseTimeout": 77,
                "startupTimeout": 66,
            },
        ),
        # The archive's own file comes before the JSON, where it says something.
        ("configured", {"minWorkers": 1, "maxWorkers": 1, "batchSize": 5, "maxBatchDelay": 250, "responseTimeout": 55}),
        ("entry", {"minWorkers": 1, "batchSize": 6, "maxBatchDelay": 60, "responseTimeout": 33, "startupTimeout": 120}),
        (
            "wishes",
            {"deviceType": "cpu", "batchSize": 1, "maxBatchDelay": 100, "startupTimeout": 120, "useVenv": False},
        ),
        ("noop/1.11", {"minWorkers": 1, "batchSize": 1, "maxBatchDelay": 100, "responseTimeout": 33}),
    ],
)
def test_a_models_values_come_from_its_archive_then_the_json_then_the_defaults(
    server: DropIn, path: str, expected: dict[str, Any]
) -> None:
    described = describe(server, path)
    assert {key: described[key] for key in expected} == expected
    assert "deviceIds" not in described


def test_a_variable_beats_the_file(server: DropIn) -> None:
    """The queue's 50 comes from a variable as well, but of ``$$QUEUE$$`` in the file."""
    assert describe(server, "klass")["jobQueueStatus"]["remainingCapacity"] == 7


def test_a_register_call_beats_the_json_and_the_variable_opened_the_api(server: DropIn) -> None:
    assert server.manage("DELETE", "/models/entry").status == 200
    reply = server.manage("POST", "/models?url=entry.mar&batch_size=2&initial_workers=0")
    assert reply.status == 200
    described = describe(server, "entry")
    assert (described["batchSize"], described["maxBatchDelay"], described["loadedAtStartup"]) == (2, 60, False)


def test_the_variable_of_allowed_urls_needs_a_switch_of_its_own(server: DropIn) -> None:
    reply = server.manage("POST", "/models?url=http://127.0.0.1:1/m.mar")
    assert "not found" in reply.error()[2].lower() or "download" in reply.error()[1].lower(), reply


@pytest.fixture(scope="module")
def plain(start) -> DropIn:
    """The same variables where the file does not ask for them, and flags over the file."""
    settings = {"load_models": "klass.mar,other=noop.mar", "job_queue_size": "$$QUEUE$$", "enable_model_api": "false"}
    return start(settings, "--models", "second=noop.mar", "noopv2.mar", environ=ENVIRON)


def test_variables_do_not_count_unless_the_file_says_so(plain: DropIn) -> None:
    assert describe(plain, "second")["jobQueueStatus"]["remainingCapacity"] == 50
    assert plain.manage("POST", "/models?url=klass.mar").error()[:2] == (405, "MethodNotAllowedException")


def test_models_of_the_command_line_replace_those_of_the_file(plain: DropIn) -> None:
    models = plain.manage("GET", "/models").json()["models"]
    assert {one["modelName"]: one["modelUrl"] for one in models} == {"second": "noop.mar", "noop": "noopv2.mar"}
    assert describe(plain, "second")["modelVersion"] == "1.11"


def refusal(against: str, directory: Path, store: Path, settings: dict[str, Any]) -> tuple[int, str]:
    """(exit code, output) of a start that must fail."""
    env = environment(against, directory)
    write_config(directory, {**OPEN, **settings})
    words = ["torchserve", "--start", "--foreground", "--ncs", "--model-store", str(store), "--ts-config"]
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*words, "config.properties"],
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        code = process.wait(90)
    finally:  # the server that started all the same, whose process may be another one than the command's
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return code, log.read_text(errors="replace")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_store": "$$NO_SUCH_VARIABLE_HERE$$"}, "NO_SUCH_VARIABLE_HERE"),
        ({"inference_address": "127.0.0.1:8080"}, "127.0.0.1:8080"),
        ({"inference_address": "unix:relative.sock"}, "unix:relative.sock"),
        ({"inference_address": "https://127.0.0.1:66666"}, "https://127.0.0.1:66666"),
        ({"grpc_inference_port": "many"}, "many"),
    ],
)
def test_wrong_settings_stop_the_start_and_are_named(
    against: str, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    code, output = refusal(against, tmp_path, store, settings)
    assert "Model server started." not in output
    assert "Invalid configuration: " in output
    assert said in output
    if against == OURS:
        assert code == 1


def test_two_archives_of_one_version_do_not_start_by_luck(against: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    archive(store, "noop", NOOP, version="1.11", file="again.mar")
    code, output = refusal(against, tmp_path, store, {"load_models": "all"})
    assert "Model server started." not in output
    assert "Model version 1.11 is already registered for model noop" in output
    if against == OURS:
        assert code == 1


def test_token_switch_of_the_command_line_cannot_close(against: str, tmp_path: Path) -> None:
    """The variable comes before the flag, which can only turn tokens off."""
    settings = {**OPEN, "enable_envvars_config": "true"}
    environ = {"TS_DISABLE_TOKEN_AUTHORIZATION": "false"}
    store = tmp_path / "store"
    store.mkdir()
    with drop_in(against, tmp_path, store, settings, "--disable-token-auth", environ=environ) as server:
        assert server.manage("GET", "/models").error()[1] == "InvalidKeyException"


@pytest.mark.parametrize(
    ("yaml", "kind", "level"),
    [
        ("parallelType: PP\ntorchrun:\n  nproc-per-node: 2\n", "pp", 2),
        ("parallelType: tp\ntorchrun:\n  OMP_NUMBER_THREADS: 1\n", "tp", 1),
        ("parallelType: custom\nparallelLevel: 3\ndeviceType: CPU\n", "custom", 3),
        ("parallelType: pp\n", "", 0),
        ("parallelLevel: 3\n", "", 0),
        ("torchrun:\n  nproc-per-node: 2\n", "", 0),
        ("parallelType: both\nparallelLevel: 3\n", "", 0),
    ],
)
def test_the_level_is_the_number_of_processes_and_needs_a_type(
    server: DropIn, yaml: str, kind: str, level: int
) -> None:
    name = f"p{abs(hash(yaml)) % 10**8}"
    archive(server.store, name, NOOP, model_config__yaml=yaml, model={"configFile": "model_config.yaml"})
    assert server.manage("POST", f"/models?url={name}.mar&initial_workers=0").status == 200
    described = describe(server, name)
    assert (described["parallelType"], described["parallelLevel"]) == (kind, level)
    assert described["deviceType"] == "cpu"
