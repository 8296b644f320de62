"""Workers that die, hang or run out of time: who is told what, what is tried again, what ``describe`` remembers."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from support.server import HANDLERS, LiveServer, Reply, running

MODELS = ("exits", "segfaults", "blocks_forever", "loses_device", "forks", "echo", "hangs_once", "counts")
CONFIG = """
[defaults]
batch_policy = "eager"

[model.exits]
retry_on_worker_death = 0

[model.segfaults]
retry_on_worker_death = 0

[model.blocks_forever]
response_timeout = 0.4
retry_on_worker_death = 0

[model.hangs_once]
response_timeout = 0.5
"""
HANGS_ONCE = '''
"""Never answers while the file named by the body is missing, which it then makes."""
import os, threading

def handle(data, context):
    if data is None:
        return None
    flag = bytes(data[0]["body"]).decode()
    if not os.path.exists(flag):
        open(flag, "w").close()
        threading.Event().wait()
    return [str(os.getpid())] * len(data)
'''
COUNTS = '''
"""Notes each call in the file named by the body, then dies by SIGKILL."""
import os, signal

def handle(data, context):
    if data is None:
        return None
    with open(bytes(data[0]["body"]).decode(), "a") as file:
        file.write(f"{os.getpid()}\\n")
    os.kill(os.getpid(), signal.SIGKILL)
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("workers")
    store = directory / "store"
    store.mkdir()
    for name in MODELS:
        if (HANDLERS / f"{name}.py").exists():
            shutil.copy(HANDLERS / f"{name}.py", store)
    (store / "hangs_once.py").write_text(HANGS_ONCE)
    (store / "counts.py").write_text(COUNTS)
    (directory / "mlserve.toml").write_text(CONFIG)
    names = [*(f"{name}.py" for name in MODELS), "queued=segfaults.py"]
    with running(directory, *names, store=store, args=["--config", "mlserve.toml"]) as live:
        yield live


@pytest.fixture(autouse=True)
def others_serve(server):
    """A death is the matter of one model."""
    before = server.worker_pids("echo")
    yield
    assert server.predict("echo", b"still here").body == b"still here"
    assert server.worker_pids("echo") == before


def worker(server: LiveServer, model: str) -> dict:
    return server.describe(model)["workers"][0]


def wait_restarted(server: LiveServer, model: str, restarts: int) -> dict:
    return server.wait_for(
        lambda: (now := worker(server, model))["restarts"] >= restarts and now["state"] == "READY" and now
    )


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        ("exits", b"7", "exited with code 7"),
        ("exits", b"3", "exited with code 3"),
        ("exits", b"5", "exited with code 5"),
        ("exits", b"0", "ended by itself (exit code 0), though nobody asked it to"),
        ("segfaults", b"crash", "was killed by SIGSEGV"),
        ("blocks_forever", b"block", "did not answer in time (response_timeout is 0.4 s"),
    ],
)
def test_death_is_explained_to_the_client_and_in_describe(server, model, body, words):
    restarts = worker(server, model)["restarts"]
    pid = worker(server, model)["pid"]
    code, kind, message = server.predict(model, body).error()
    assert (code, kind) == (500, "InternalServerException")
    assert message.startswith("Worker died: worker ")
    assert words in message
    after = wait_restarted(server, model, restarts + 1)
    assert words in after["lastExit"]
    assert after["pid"] != pid
    assert not Path(f"/proc/{pid}").exists(), "it was not reaped"
    if model == "segfaults":
        tail = "\n".join(after["logTail"])
        assert "Segmentation fault" in tail
        assert 'segfaults.py", line 10 in handle' in tail, "a crash in native code leaves its Python stack"
    if model != "exits":
        assert server.predict(model, b"fine").body == b"fine"


def test_poisonous_request_is_tried_once_more_and_not_again(server, tmp_path):
    """The default retries a request once: a request that kills every worker it meets must not kill them for ever."""
    code, _, message = server.predict("counts", str(tmp_path / "calls").encode()).error()
    assert code == 500
    assert "was killed by SIGKILL" in message
    assert len((tmp_path / "calls").read_text().split()) == 2
    wait_restarted(server, "counts", 2)


def test_request_survives_a_worker_that_hangs(server, tmp_path):
    reply = server.predict("hangs_once", str(tmp_path / "flag").encode())
    assert reply.status == 200
    assert int(reply.body) in server.worker_pids("hangs_once")
    assert "response_timeout" in wait_restarted(server, "hangs_once", 1)["lastExit"]
    assert server.metric("mlserve_worker_restarts_total", model="hangs_once", reason="response_timeout") == 1


def test_lost_device_ends_the_process_behind_its_answer(server):
    pid = worker(server, "loses_device")["pid"]
    code, _, message = server.predict("loses_device", b"lose").error()
    assert code == 500
    assert "illegal memory access" in message
    after = wait_restarted(server, "loses_device", 1)
    assert after["pid"] != pid
    assert "its device failed for good" in after["lastExit"]
    assert server.predict("loses_device", b"fine").body == b"fine"


def test_forked_child_ends_with_its_worker(server):
    child = int(server.predict("forks", b"600").body)
    assert psutil.pid_exists(child)
    os.kill(worker(server, "forks")["pid"], signal.SIGKILL)
    server.wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    wait_restarted(server, "forks", 1)


def test_unstarted_requests_outlive_the_worker_in_order(server):
    """One request kills the worker; those queued behind it are computed by its successor, none lost, none doubled."""
    replies: dict[int, Reply] = {}

    def ask(number: int, body: bytes) -> None:
        replies[number] = server.predict("queued", body)

    bodies = [b"crash", *(b"%d" % number for number in range(12))]
    threads = [threading.Thread(target=ask, args=item) for item in enumerate(bodies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert replies[0].status == 500
    assert [replies[number].body for number in range(1, 13)] == bodies[1:]
    assert server.metric("mlserve_queue_depth", model="queued") == 0


def test_worker_that_dies_all_the_time_is_held_back_and_given_up(tmp_path):
    """Back-off instead of a storm of starts; then a clear refusal; a new scale tries again."""
    shutil.copy(HANDLERS / "exits.py", tmp_path)
    (tmp_path / "mlserve.toml").write_text("[model.exits]\nmax_retry_timeout = 0.5\nretry_on_worker_death = 0\n")
    with running(tmp_path, "exits.py", args=["--config", "mlserve.toml"]) as server:
        began = time.monotonic()
        assert server.predict("exits", b"9").status == 500
        wait_restarted(server, "exits", 1)
        assert server.predict("exits", b"9").status == 500
        server.wait_for(lambda: worker(server, "exits")["state"] == "FAILED")
        assert time.monotonic() - began < 40
        code, kind, message = server.predict("exits", b"9").error()
        assert (code, kind) == (503, "ServiceUnavailableException")
        assert "exited with code 9" in message
        assert server.request("GET", "/ping").status == 500
        assert server.request("GET", "/models/exits/ready").status == 503
        server.manage("PUT", "/models/exits?min_worker=1&synchronous=true")
        assert server.request("GET", "/ping").status == 200
