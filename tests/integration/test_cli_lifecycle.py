"""``mlserve start --detach``, ``status`` and ``stop`` as a person types them, with real processes."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

HANDLER = "def handle(data, context):\n    return ['ok'] * len(data) if data else None\n"


class Cli:
    """The command in a directory of its own, with its own temporary directory and ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLSERVE_")}
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        apis = ("INFERENCE", "MANAGEMENT", "METRICS")
        named = {f"MLSERVE_SERVER_{api}_PORT": str(port) for api, port in zip(apis, ports, strict=True)}
        self.environ = {**kept, **named, "TMPDIR": str(directory), "MLSERVE_GPU_IDS": "none"}
        self.environ["MLSERVE_GRPC_ENABLED"] = "false"

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mlserve", *arguments]
        return subprocess.run(
            command, cwd=self.directory, env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )

    def status(self) -> tuple[int, dict]:
        answer = self("status", "--json")
        return answer.returncode, json.loads(answer.stdout)


def ended(process: psutil.Process) -> bool:
    """Whether it has ended; in a container without an init process nobody may have reaped it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def cli(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "echo.py").write_text(HANDLER)
    (tmp_path / "store" / "bad.py").write_text("raise RuntimeError('no weights here')\n")
    command = Cli(tmp_path)
    yield command
    command("stop", "--timeout", "10", "--force")


def test_detached_server_is_ready_on_return_and_gone_after_stop(cli):
    started = cli("start", "--detach", "--model-store", "store", "--models", "echo.py")
    assert started.returncode == 0, started.stderr
    assert "mlserve runs in the background" in started.stdout
    code, status = cli.status()
    assert (code, status["state"]) == (0, "ready")
    assert status["models"] == [{"name": "echo", "version": "1.0", "ready_workers": 1, "workers": 1}]
    server = psutil.Process(status["pid"])
    family = [server, *server.children(recursive=True)]
    assert os.getsid(server.pid) == server.pid, "a terminal that closes must not end it"

    again = cli("start", "--detach")
    assert again.returncode == 1
    assert "A server is running already" in again.stderr

    assert cli("stop").returncode == 0
    assert all(ended(process) for process in family)
    assert cli.status()[0] == 3
    assert cli("stop").returncode == 3
    left = sorted(path.name for path in cli.directory.iterdir())
    assert left == [Path(status["log_file"]).name, "store"]


def test_detached_start_that_fails_tells_the_cause_and_its_code(cli):
    started = cli("start", "--detach", "--model-store", "store", "--models", "bad.py", "echo.py")
    assert started.returncode == 4
    assert "RuntimeError: no weights here" in started.stderr
    assert "mlserve: error: model bad did not load" in started.stderr
    assert cli.status()[0] == 3


def test_killed_server_does_not_stand_in_the_way_of_the_next(cli):
    assert cli("start", "--detach").returncode == 0
    pid = cli.status()[1]["pid"]
    server = psutil.Process(pid)
    server.kill()
    deadline = time.monotonic() + 10
    while not ended(server) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert cli.status()[0] == 3
    assert cli("start", "--detach").returncode == 0
    assert cli.status()[1]["pid"] != pid
