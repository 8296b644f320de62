"""The main job as a person does it, with the command alone: pack, start, ask, manage, stop. And how it says no."""

import json
import os
import socket
import subprocess

import pytest
from support.server import command, launched, running

from mlserve.archive import pack

HANDLER = """
def handle(data, context):
    if data is None:
        return None
    version = context.manifest["model"]["modelVersion"] if context.manifest else "none"
    return [{"version": version, "got": row.get("body")} for row in data]
"""


class Person:
    """Types commands in a directory of its own."""

    def __init__(self, directory):
        self.directory = directory
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.ports = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLSERVE_")}
        self.environ = {
            **kept,
            "TMPDIR": str(directory),
            "MLSERVE_GRPC_ENABLED": "false",
            "MLSERVE_INFERENCE_URL": f"http://127.0.0.1:{self.ports[0]}",
            "MLSERVE_MANAGEMENT_URL": f"http://127.0.0.1:{self.ports[1]}",
        }

    def types(self, *arguments: str, code: int = 0) -> str:
        """Run ``mlserve`` and return what it prints; it must end with this code."""
        done = subprocess.run(
            [*command(), *arguments],
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def json(self, *arguments: str):
        return json.loads(self.types(*arguments, "--json"))

    def starts(self, *arguments: str, code: int = 0) -> str:
        apis = ("inference", "management", "metrics")
        ports = [f"--{api}-port={port}" for api, port in zip(apis, self.ports, strict=True)]
        return self.types("start", "--detach", "--pid-file=pid", "--gpus=none", *ports, *arguments, code=code)


@pytest.fixture
def person(tmp_path):
    someone = Person(tmp_path)
    yield someone
    if (tmp_path / "pid").exists():
        subprocess.run([*command(), "stop", "--pid-file=pid", "--timeout=5", "--force"], cwd=tmp_path, check=False)


def test_from_a_handler_to_a_managed_server_and_back_to_nothing(person):
    (person.directory / "store").mkdir()
    (person.directory / "handler.py").write_text(HANDLER)
    for version in ("1.0", "2.0"):
        options = ["--model-name", "m", "--version", version, "--handler", "handler.py", "--export-path", "store"]
        person.types("archive", *options)
        (person.directory / "store" / "m.mar").rename(person.directory / "store" / f"m-{version}.mar")
    assert "m-1.0" not in person.starts("--model-store=store", "--models", "m-1.0.mar", code=0)

    status = person.json("status", "--pid-file=pid")
    assert (status["state"], [model["name"] for model in status["models"]]) == ("ready", ["m"])
    assert person.json("predict", "m", "-d", '{"a": 1}')["answer"] == {"version": "1.0", "got": {"a": 1}}

    person.types("models", "register", "m-2.0.mar", "--initial-workers", "1")
    assert "already registered" in person.types("models", "register", "m-2.0.mar", code=1)
    person.types("models", "scale", "m", "--version", "2.0", "--min-worker", "2")
    described = {model["modelVersion"]: model for model in person.json("models", "describe", "m", "--version", "all")}
    assert {version: len(model["workers"]) for version, model in described.items()} == {"1.0": 1, "2.0": 2}

    person.types("models", "set-default", "m", "2.0")
    assert person.json("predict", "m", "-d", "1")["answer"]["version"] == "2.0"
    assert "default version" in person.types("models", "unregister", "m", "--version", "2.0", code=1)
    person.types("models", "unregister", "m", "--version", "1.0")
    person.types("models", "unregister", "m")
    assert person.json("models", "list")["models"] == []
    person.types("predict", "m", "-d", "1", code=1)

    person.types("stop", "--pid-file=pid")
    person.types("status", "--pid-file=pid", code=3)
    left = {path.name for path in person.directory.iterdir()}
    assert {name for name in left if not name.endswith(".log")} == {"store", "handler.py"}


def test_taken_port_fails_at_once_and_names_the_api_and_the_port(tmp_path):
    """Before any model is loaded: a taken port must not be found out after minutes."""
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(30)\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with launched(tmp_path, "slow.py", settings={"SERVER_MANAGEMENT_PORT": port}) as server:
            assert server.wait(25) == 1
            text = server.log_text()
            assert f"the management API cannot listen on 127.0.0.1:{port}" in text
            assert "address already in use" in text
            assert "Traceback" not in text
            server.check_nothing_left()


def test_unpacked_directory_archive_and_plain_handler_are_all_models(tmp_path):
    """Nobody has to zip to try; names come from the files unless they are given."""
    store, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    store.mkdir()
    elsewhere.mkdir()
    (elsewhere / "plain.py").write_text(HANDLER)
    pack(model_name="packed", version="3.1", handler=str(elsewhere / "plain.py"), export_path=store)
    pack(
        model_name="unpacked",
        version="4.0",
        handler=str(elsewhere / "plain.py"),
        export_path=elsewhere,
        archive_format="no-archive",
    )
    models = ("packed.mar", str(elsewhere / "unpacked"), str(elsewhere / "plain.py"), f"named={elsewhere / 'plain.py'}")
    with running(tmp_path / "server", *models, store=store) as server:
        names = [model["modelName"] for model in server.manage("GET", "/models")["models"]]
        assert names == ["named", "packed", "plain", "unpacked"]
        assert server.predict("packed", b"1", content_type="application/json").json()["version"] == "3.1"
        assert server.predict("unpacked", b"1", content_type="application/json").json()["version"] == "4.0"
        for name in ("plain", "named"):
            assert server.predict(name, b"1", content_type="application/json").json() == {"version": "none", "got": 1}
    assert (elsewhere / "unpacked" / "plain.py").exists(), "what was unpacked by others is not ours to remove"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "missing.mar"], "missing.mar"),
        (["--config=missing.toml"], "missing.toml"),
        (["--host=0.0.0.0"], "--insecure"),
        (["--model-store=nowhere"], "nowhere"),
    ],
)
def test_start_that_cannot_be_says_why_without_a_traceback(tmp_path, arguments, words):
    with launched(tmp_path, args=arguments) as server:
        assert server.wait(20) in (1, 2, 4)
        assert words in server.log_text()
        assert "Traceback" not in server.log_text()
        server.check_nothing_left()
