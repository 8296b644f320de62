"""A worker that computes several batches at once: one that hangs or dies takes no other request's answer with it."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.server import HANDLERS, running

CONFIG = """
[model.hangs_once]
handler_threads = 2
response_timeout = 1.0

[model.slow]
handler_threads = 2

[model.exits]
handler_threads = 2
retry_on_worker_death = 0
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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("threads")
    store = directory / "store"
    store.mkdir()
    (store / "hangs_once.py").write_text(HANGS_ONCE)
    for name in ("slow", "exits"):
        shutil.copy(HANDLERS / f"{name}.py", store)
    (directory / "mlserve.toml").write_text(CONFIG)
    names = ("hangs_once.py", "slow.py", "exits.py")
    with running(directory, *names, store=store, args=["--config", "mlserve.toml"]) as live:
        yield live


def test_a_batch_that_hangs_beside_others_that_are_answered_runs_out_of_time(server, tmp_path):
    (there := tmp_path / "there").touch()
    restarts = server.restarts()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(server.predict, "hangs_once", bytes(tmp_path / "flag"))
        beside = []
        while not hanging.done():
            beside.append(server.predict("hangs_once", bytes(there)).status)
    assert hanging.result().status == 200  # tried again in the next worker
    assert set(beside) == {200}
    assert server.restarts() == restarts + 1


def test_a_slow_request_does_not_keep_the_next_from_its_worker(server):
    answered = threading.Event()

    def slow():
        assert server.predict("slow", b"3").status == 200
        answered.set()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(slow)
        assert server.predict("slow", b"0").status == 200
        assert not answered.is_set()
        waiting.result()


def test_an_exit_in_one_thread_is_told_with_its_code_and_the_model_serves_on(server):
    reply = server.predict("exits", b"7")
    assert reply.status == 500
    assert "exited with code 7" in reply.json()["message"]
    assert server.wait_for(lambda: server.predict("exits", b"7").status == 500)
