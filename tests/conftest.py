"""Fixtures every kind of test may use: free ports, a real server in a process of its own, and the check that no test
leaves a process behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_process_left() -> Iterator[None]:
    """Fail the run if a child of the test process is still there at its end."""
    yield
    left = [
        process for process in psutil.Process().children(recursive=True) if process.status() != psutil.STATUS_ZOMBIE
    ]
    commands = [" ".join(process.cmdline()) for process in left if process.is_running()]
    for process in left:
        process.kill()
    assert not commands, f"tests left processes behind: {commands}"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """``free_ports(n)``: n ports of 127.0.0.1 that nobody listened on a moment ago."""
    return _free_ports


@dataclass
class RunningServer:
    """``mlserve start`` in the foreground of a child process."""

    process: "subprocess.Popen[bytes]"
    inference: str
    management: str
    metrics: str
    log: Path
    temp: Path
    """The server's TMPDIR: what is in it after a stop was left behind."""

    def post(self, path: str, body: bytes = b"", content_type: str = "application/octet-stream") -> Any:
        """POST to the inference port and parse the JSON answer; an error status raises urllib's HTTPError."""
        request = urllib.request.Request(
            self.inference + path, data=body, headers={"Content-Type": content_type}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.loads(reply.read())

    def wait_ready(self, seconds: float) -> None:
        """Return when /health/ready says 200; fail with the server's log if it ends or takes longer."""
        until = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(self.inference + "/health/ready", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                if self.process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"the server did not get ready ({error}):\n{self.log.read_text(errors='replace')}")
            time.sleep(0.05)

    def stop(self) -> int:
        """SIGTERM and wait; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the server did not stop on SIGTERM:\n{self.log.read_text(errors='replace')}")


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """``start_server(store, "name=file", ..., args=(...), python=...)`` starts a server, waits until it is ready, and
    stops it after the test."""
    started: list[RunningServer] = []

    def start(
        store: Path, *models: str, args: tuple[str, ...] = (), python: str = sys.executable, ready_within: float = 60
    ) -> RunningServer:
        inference, management, metrics = _free_ports(3)
        # The console script beside the interpreter: "python -m" would put the working directory on sys.path.
        command = [str(Path(python).parent / "mlserve"), "start"]
        command += ["--model-store", str(store), "--host", "127.0.0.1", "--inference-port", str(inference)]
        command += ["--management-port", str(management), "--metrics-port", str(metrics)]
        command += [*(["--models", *models] if models else []), *args]
        log, temp = tmp_path / f"server-{len(started)}.log", tmp_path / f"server-{len(started)}-tmp"
        temp.mkdir()
        env = {**os.environ, "TMPDIR": str(temp)}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=store, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        base = "http://127.0.0.1"
        server = RunningServer(process, f"{base}:{inference}", f"{base}:{management}", f"{base}:{metrics}", log, temp)
        started.append(server)
        server.wait_ready(ready_within)
        return server

    yield start
    for server in started:
        server.stop()
