"""Models that cannot be loaded: at start, with and without --keep-going, and over the management API."""

import shutil
import time

import pytest
from support.server import HANDLERS, LiveServer, launched, running

from mlserve.archive import pack

BROKEN = {
    "raises_on_load": "FileNotFoundError: weights.pt is missing",
    "missing_dependency": "No module named 'module_that_nobody_has'",
    "out_of_memory_on_load": "MemoryError",
    "two_classes": "two_classes",
    "syntax": "SyntaxError",
    "nothing": "nothing",
    "exits_on_load": "SystemExit",
    "dies_on_load": "was killed by SIGKILL",
}
WRITTEN = {
    "syntax": "def handle(data, context)\n    return data\n",
    "nothing": "print('no handler here')\n",
    "exits_on_load": "import sys\nsys.exit('not today')\n",
    "dies_on_load": "import os\nos.kill(os.getpid(), 9)\n",
    "hangs_on_load": "import threading\nprint('before', flush=True)\nthreading.Event().wait()\n",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Handler files, and an archive of each, as the management API takes archives only."""
    directory = tmp_path_factory.mktemp("store")
    for name in (*BROKEN, "echo", "slow_load"):
        if (HANDLERS / f"{name}.py").exists():
            shutil.copy(HANDLERS / f"{name}.py", directory)
    for name, source in WRITTEN.items():
        (directory / f"{name}.py").write_text(source)
    for name in (*BROKEN, "echo", "hangs_on_load"):
        pack(model_name=name, version="1.0", handler=str(directory / f"{name}.py"), export_path=directory)
    return directory


@pytest.fixture(scope="module")
def server(store, tmp_path_factory):
    with running(tmp_path_factory.mktemp("registers"), "echo.mar", store=store) as live:
        yield live


def test_start_fails_with_the_cause_on_standard_error(store, tmp_path):
    with launched(tmp_path, "raises_on_load.py", "echo.py", store=store) as server:
        assert server.wait() == 4
        text = server.log_text()
        assert "Traceback (most recent call last)" in text
        assert 'raises_on_load.py", line 6, in initialize' in text
        assert "mlserve: error: model raises_on_load did not load" in text
        assert "--keep-going" in text
        server.check_nothing_left()


def test_start_tells_of_every_model_that_does_not_load(store, tmp_path):
    with launched(tmp_path, *(f"{name}.py" for name in BROKEN), store=store) as server:
        assert server.wait() == 4
        text = server.log_text()
        for name, cause in BROKEN.items():
            (line,) = [each for each in text.splitlines() if f"mlserve: error: model {name} did not load" in each]
            assert cause in line
        server.check_nothing_left()


def test_keep_going_serves_the_others_and_says_which_do_not(store, tmp_path):
    mended = store / "mended.mar"
    models = ("raises_on_load.py", "echo.py", "mended.mar")
    with running(tmp_path, *models, store=store, args=["--keep-going"]) as server:
        assert "model raises_on_load did not load" in server.log_text()
        assert server.predict("echo", b"works").body == b"works"
        assert server.predict("raises_on_load").error()[0] == 404
        names = [model["modelName"] for model in server.manage("GET", "/models")["models"]]
        assert names == ["echo"]
        assert server.request("GET", "/ping").status == 500
        health = server.request("GET", "/health/ready")
        assert (health.status, health.json()["models"]) == (
            503,
            {"echo": True, "mended": False, "raises_on_load": False},
        )
        mended.write_bytes((store / "echo.mar").read_bytes())
        server.manage("POST", "/models?url=mended.mar&model_name=mended&initial_workers=1")
        assert server.request("GET", "/health/ready").json()["models"]["mended"] is True
        assert server.metric("mlserve_ready") == 0


@pytest.mark.parametrize(("name", "cause"), BROKEN.items(), ids=list(BROKEN))
def test_registration_that_fails_says_why_and_leaves_nothing(server: LiveServer, name, cause):
    files = server.temporary_files()
    reply = server.request("POST", f"/models?url={name}.mar&initial_workers=2", api="management")
    code, kind, message = reply.error()
    memory = name == "out_of_memory_on_load"
    assert (code, kind) == ((507, "OutOfMemoryException") if memory else (500, "InternalServerException"))
    assert cause in message
    assert server.request("GET", f"/models/{name}", api="management").status == 404
    assert server.predict("echo", b"works").body == b"works"
    assert server.request("GET", "/ping").status == 200
    server.wait_for(lambda: server.temporary_files() == files)
    assert len(server.family()) == 2, "the server and the worker of echo"


def test_asynchronous_registration_that_fails_is_told_by_describe(server):
    reply = server.request(
        "POST", "/models?url=raises_on_load.mar&initial_workers=1&synchronous=false", api="management"
    )
    assert reply.status == 202
    server.wait_for(lambda: server.describe("raises_on_load")["state"] == "FAILED")
    described = server.describe("raises_on_load")
    assert "weights.pt is missing" in described["lastError"]
    worker = described["workers"][0]
    assert worker["state"] == "FAILED"
    assert "could not load the model" in worker["lastExit"]
    assert "Traceback (most recent call last)" in worker["traceback"]
    assert "weights.pt is missing" in worker["traceback"]
    code, _, message = server.predict("raises_on_load").error()
    assert code == 503
    assert "weights.pt is missing" in message
    assert server.request("GET", "/ping").status == 200, "a model that never served is no reason to take out the server"
    server.manage("DELETE", "/models/raises_on_load")


def test_startup_timeout_ends_a_load_that_hangs(server):
    began = time.monotonic()
    reply = server.request(
        "POST", "/models?url=hangs_on_load.mar&initial_workers=1&startup_timeout=1", api="management"
    )
    code, _, message = reply.error()
    assert code == 500
    assert "did not load the model in time (startup_timeout is 1 s" in message
    assert 0.9 < time.monotonic() - began < 30
    assert len(server.family()) == 2


def test_registration_is_undone_while_it_loads(server):
    """Unregistering, or a client that gives up on waiting, leaves no worker behind."""
    before = len(server.family())
    path = "/models?url=hangs_on_load.mar&initial_workers=2&synchronous=false"
    assert server.request("POST", path, api="management").status == 202
    server.wait_for(lambda: len(server.family()) == before + 2)
    assert server.predict("echo", b"works").body == b"works"
    server.manage("DELETE", "/models/hangs_on_load")
    assert len(server.family()) == before


def test_requests_to_a_model_that_loads_wait_for_it(store, tmp_path):
    (tmp_path / "mlserve.toml").write_text("[model.slow_load]\nmin_workers = 0\n")
    with running(tmp_path, "slow_load.py", store=store, args=["--config", "mlserve.toml"]) as server:
        assert server.predict("slow_load").error()[0] == 503
        assert server.request("PUT", "/models/slow_load?min_worker=1", api="management").status == 202
        assert server.request("GET", "/models/slow_load/ready").status == 503
        assert server.predict("slow_load", b"waited").body == b"waited"
