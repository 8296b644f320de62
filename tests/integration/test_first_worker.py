"""The first worker is a process that was begun before the server was there; it, and a spare, end with the server."""

import json
import signal
import subprocess

import pytest
from support.server import command, launched, running, wait_ready

HANDLER = """
import onnxruntime

def handle(data, context):
    return data and ["ok"] * len(data)
"""


def packages(folder):
    """A directory with a package that is worth a spare and takes no time to import."""
    (folder / "packages" / "onnxruntime").mkdir(parents=True)
    (folder / "packages" / "onnxruntime" / "__init__.py").write_text("")
    (folder / "model.py").write_text(HANDLER)
    return str(folder / "packages")


def test_first_worker_waits_for_the_server_and_a_spare_outlives_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", packages(tmp_path))
    settings = {"WORKERS_SPARE": "1", "DEFAULTS_WORKERS": "1"}
    with launched(tmp_path, "m=model.py", settings=settings) as server:
        wait_ready(server)
        assert "takes the spare process" in server.log_text()
        server.wait_for(lambda: "has imported onnxruntime" in server.log_text())
        (worker,) = server.worker_pids("m")
        line = [*command(), "status", "--json", "--pid-file", str(server.pid_file)]
        (spare,) = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)["spares"]
        assert spare["pid"] != worker
        assert spare["state"] == "warm"
        assert server.metric("mlserve_spare_memory_bytes") == spare["memoryShare"] > 0
        server.signal(signal.SIGKILL)
        server.wait()
        server.wait_for(lambda: not server.family())
        server.pid_file.unlink()


def test_process_that_no_model_takes_stays(tmp_path):
    (tmp_path / "model.py").write_text(HANDLER.replace("import onnxruntime", "import there_is_no_such_module"))
    settings = {"WORKERS_SPARE": "1", "DEFAULTS_WORKERS": "1"}
    with launched(tmp_path, "m=model.py", settings=settings) as server:
        assert server.wait() == 4
        server.check_nothing_left()
    (tmp_path / "good.py").write_text(HANDLER.replace("import onnxruntime", ""))
    with running(tmp_path, "m=model.py", "n=good.py", settings={**settings, "MODELS_KEEP_GOING": "true"}) as server:
        server.wait_for(lambda: len(server.family()) == 2)  # itself and the worker of n


def test_server_that_loads_in_the_background_ends_the_process_too_soon(tmp_path):
    (tmp_path / "model.py").write_text(HANDLER.replace("import onnxruntime", "import time; time.sleep(0.5)"))
    settings = {"WORKERS_SPARE": "1", "DEFAULTS_WORKERS": "1", "MODELS_START_IN_BACKGROUND": "true"}
    with running(tmp_path, "m=model.py", settings=settings) as server:
        server.wait_for(lambda: server.worker_pids("m"))
        assert "takes the spare process" in server.log_text()
        assert len(server.family()) == 2


SHOWS_ENVIRONMENT = """
import os

def handle(data, context):
    first = open("/proc/self/environ").read().partition("KEPT_BACK")[1]
    return data and [first + os.environ["TS_DECODE_INPUT_REQUEST"] + os.environ["OMP_NUM_THREADS"]] * len(data)
"""


@pytest.mark.parametrize("kept", ["KEPT_.*", "NOTHING"])
def test_the_first_worker_has_the_environment_that_the_settings_give_it(tmp_path, monkeypatch, kept):
    monkeypatch.setenv("KEPT_BACK", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "model.py").write_text(SHOWS_ENVIRONMENT)
    settings = {"WORKERS_SPARE": "1", "WORKERS_BLOCK_ENV": kept, "DEFAULTS_DECODE_INPUT": "false"}
    with running(tmp_path, "m=model.py", settings={**settings, "DEFAULTS_WORKERS": "1"}) as server:
        assert "takes the spare process" in server.log_text()
        shown = "KEPT_BACK" if kept == "NOTHING" else ""
        assert server.predict("m").body.decode() == f"{shown}false1"


def test_a_process_begun_for_settings_that_are_wrong_does_not_stay(tmp_path):
    (tmp_path / "model.py").write_text(SHOWS_ENVIRONMENT)
    with launched(tmp_path, "m=model.py", settings={"WORKERS_SPARE": "none"}) as server:
        assert server.wait() == 2
        server.check_nothing_left()
