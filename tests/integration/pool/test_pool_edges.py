"""Programs that are no workers, systems without pidfd, impatient operators, and a server that dies first."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from mlserve.engine.local.process import WorkerProcess
from mlserve.errors import WorkerStartError

BUSY = """
import time
def handle(data, context):
    time.sleep(60 if data else 0)
"""


def _program(source):
    """A worker command that runs ``source`` with ``sock`` connected to the server."""
    start = "import socket, sys\nsock = socket.socket(fileno=int(sys.argv[sys.argv.index('--fd') + 1]))\n"
    return lambda spec, options: [sys.executable, "-c", start + textwrap.dedent(source)]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("sock.sendall(b'HTTP/1.1 400 Bad Request' + bytes(99)); sock.recv(1)", "sent a frame that cannot be read"),
        ("import sys; print('no such library', file=sys.stderr); sys.exit(1)", "exited with code 1"),
        ("sock.close(); import time; time.sleep(60)", "closed its connection without exiting"),
        ("import os; os.kill(os.getpid(), 9)", "was killed"),
        (
            "from mlserve.wire.frames import *; from mlserve.wire.payload import *\n"
            "sock.sendall(frame(Kind.HELLO, 0, Hello(1, '3', 99))); sock.recv(1)",
            "speaks protocol 99",
        ),
    ],
)
def test_a_program_that_is_no_worker_fails_the_scale_with_what_it_did(rig, source, words):
    async def test(pool, events):
        with pytest.raises(WorkerStartError, match=words) as caught:
            await pool.scale(1)
        if "code 1" in words:
            assert "no such library" in caught.value.detail, "its last words are the best hint there is"

    rig.run(rig.spec(startup_timeout=20.0), test, command=_program(source))


def test_a_worker_is_reaped_on_systems_without_pidfd(rig, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)

    async def test(pool, events):
        await pool.scale(1)
        os.kill(pool.describe()[0].pid, signal.SIGKILL)
        await events.until(lambda: len(events.ready) == 2)
        assert await events.ask(events.ready[1], b"x") == [b"x"]
        await pool.stop(5)
        assert pool.describe() == []

    rig.run(rig.spec(), test)


def test_a_death_that_the_loop_learns_of_late_keeps_its_cause(rig, monkeypatch):
    """The end of the stream is seen first; on a busy machine the exit may be seen more than LAST_WORDS later."""
    monkeypatch.setattr(WorkerProcess, "_watch", lambda process: None)

    async def test(pool, events):
        with pytest.raises(WorkerStartError, match="was killed by SIGKILL"):
            await pool.scale(1)

    rig.run(rig.spec("import os; os.kill(os.getpid(), 9)", startup_timeout=20.0), test)


def test_a_second_stop_does_not_wait_for_the_first(rig):
    async def test(pool, events):
        await pool.scale(1)
        batch = events.batch(b"")
        events.ready[0].send(batch)
        patient = asyncio.create_task(pool.stop(30))
        await events.until(lambda: pool.states()["DRAINING"] == 1)
        begun = time.monotonic()
        await pool.stop(0)
        await patient
        assert time.monotonic() - begun < 20
        assert [lost[1] for lost in events.lost] == [[batch]]

    rig.run(rig.spec(BUSY), test)


def test_a_cancelled_scale_leaves_a_pool_that_still_scales(rig):
    async def test(pool, events):
        scaling = asyncio.create_task(pool.scale(1))
        await events.until(lambda: pool.states()["STARTING"] == 1)
        scaling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scaling
        await events.until(lambda: events.ready)
        await pool.scale(2)
        assert pool.states() == {"READY": 2}
        await pool.scale(0)
        assert pool.states() == {}

    rig.run(rig.spec(), test)


def test_no_worker_outlives_a_server_that_was_killed(rig):
    spec = rig.spec()
    program = f"""
    import asyncio
    from mlserve.core.model import ModelKey, ModelSpec
    from mlserve.engine.local import LoadOptions, LocalEngine
    class Events:
        def slot_ready(self, slot): pass
        def worker_loaded(self, worker_id, seconds, metrics): pass
        def load_failed(self, metrics): pass
    async def main():
        engine = LocalEngine(gpu_ids=(), cpus=1, options=LoadOptions())
        pool = engine.open(ModelSpec(ModelKey("m", "1"), {spec.model_dir!r}, {spec.handler!r}), Events())
        await pool.scale(1)
        print(pool.describe()[0].pid, flush=True)
        await asyncio.sleep(60)
    asyncio.run(main())
    """
    server = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE)
    with server:
        worker = psutil.Process(int(server.stdout.readline()))
        server.kill()
    # Its new parent may be slow to reap it, or never do so in a container: a zombie has ended, too.
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _runs(worker):
        time.sleep(0.01)
    assert not _runs(worker)


def _runs(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
