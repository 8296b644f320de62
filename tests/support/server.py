"""A real ``mlserve start`` in a process of its own, as tests need it: found by its pid file, asked over sockets, and
looked after to its end, when no process, no temporary file and no pid file may be left."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

HANDLERS = Path(__file__).resolve().parents[1] / "faults" / "handlers"
APIS = ("INFERENCE", "MANAGEMENT", "METRICS", "GRPC_INFERENCE", "GRPC_MANAGEMENT")
STARTUP = 300.0  # seconds; a loaded machine takes many times the usual one, and a server that ends fails at once
_LOADING = "TEST_STARTUP_TIMEOUT"  # seconds for a worker to load, set where heavy libraries are imported
_MARK = "TEST_SERVER_MARK"  # in the environment of the server, and so of everything it starts


@dataclass
class Reply:
    """An HTTP answer. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> tuple[int, str, str]:
        """(code, type, message) of an error body, which must have exactly these."""
        document = json.loads(self.body)
        assert set(document) == {"code", "type", "message"}, document
        return document["code"], document["type"], document["message"]


@dataclass
class LiveServer:
    """A running server. ``temp`` is its TMPDIR: what is in it after its end was left behind."""

    process: subprocess.Popen[bytes]
    log: Path
    temp: Path
    pid_file: Path
    mark: str
    addresses: dict[str, str] = field(default_factory=dict)

    # -- asking -------------------------------------------------------------------------------------------------------

    def port(self, api: str = "inference") -> int:
        return urlsplit(self.addresses[api]).port or 0

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        api: str = "inference",
        timeout: float = 120.0,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port(api), timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, fields, response.read())
        finally:
            connection.close()

    def predict(self, model: str, body: bytes = b"x", **headers: str) -> Reply:
        return self.request(
            "POST", f"/predictions/{model}", body, {name.replace("_", "-"): value for name, value in headers.items()}
        )

    def manage(self, method: str, path: str) -> Any:
        """A call of the management API that must succeed; its JSON answer."""
        reply = self.request(method, path, api="management", timeout=STARTUP)
        assert reply.status == 200, (method, path, reply)
        return reply.json()

    def describe(self, model: str, version: str = "") -> Any:
        return self.manage("GET", f"/models/{model}" + (f"/{version}" if version else ""))[0]

    def worker_pids(self, model: str) -> list[int]:
        return [worker["pid"] for worker in self.describe(model)["workers"] if worker["state"] == "READY"]

    def restarts(self) -> int:
        """Of all workers of all models."""
        return int(self.metric("mlserve_worker_restarts_total"))

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        text = self.request("GET", f"/metrics?name[]={name}", api="metrics").body.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        chosen = [one for one in samples if one.name == name and labels.items() <= one.labels.items()]
        assert chosen, f"no metric {name} with {labels}"
        return sum(one.value for one in chosen)

    def wait_for(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """The first true result of ``condition``; fails the test, with the server's log, if there is none in time."""
        until = time.monotonic() + seconds
        while not (result := condition()):
            if time.monotonic() > until:
                pytest.fail(f"not within {seconds:g} s:\n{self.log_text()}", pytrace=True)
            time.sleep(0.01)
        return result

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    # -- ending -------------------------------------------------------------------------------------------------------

    def temporary_files(self) -> list[str]:
        """Every path below the server's temporary directory. Unlike rglob, this stands a directory that goes just then:
        what a version had unpacked is removed behind the answer."""
        return sorted(
            os.path.join(folder, name) for folder, below, files in os.walk(self.temp) for name in (*below, *files)
        )

    def family(self) -> list[psutil.Process]:
        """Every process that has this server's mark in its environment and runs."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == self.mark:
                    found.append(process)
        return found

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 90.0) -> int:
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the server did not end within {seconds:g} s:\n{self.log_text()}")

    def stop(self) -> int:
        """SIGTERM, the exit code, and the proof that nothing is left."""
        self.signal()
        code = self.wait()
        self.check_nothing_left()
        return code

    def check_nothing_left(self) -> None:
        left = [" ".join(process.cmdline()) for process in self.family()]
        assert not left, f"processes are left: {left}"
        files = sorted(path.name for path in self.temp.iterdir())
        assert not files, f"temporary files are left: {files}"
        assert not self.pid_file.exists(), "the pid file is left"


def command(python: str = sys.executable) -> list[str]:
    """The console script beside an interpreter: ``python -m`` would put the working directory on its path."""
    return [str(Path(python).parent / "mlserve")]


@contextlib.contextmanager
def launched(
    directory: Path,
    *models: str,
    settings: Mapping[str, Any] | None = None,
    args: Sequence[str] = (),
    store: Path | None = None,
    python: str = sys.executable,
) -> Iterator[LiveServer]:
    """Start a server on free ports of 127.0.0.1 and end it, by force if need be. Does not wait until it is ready.

    ``settings`` are environment names without their prefix: ``{"SERVER_FAST_LANE": "false"}``. gRPC is off (most tests
    have no use for it, and loading it takes time); ``{"GRPC_ENABLED": "true"}`` serves it, on free ports as well. Spare
    workers are off as well.
    """
    directory.mkdir(parents=True, exist_ok=True)
    log, temp, pid_file, mark = directory / "server.log", directory / "tmp", directory / "pid", uuid.uuid4().hex
    temp.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLSERVE_")}
    ports = {f"SERVER_{api}_PORT": "0" for api in APIS}
    given = {**ports, "GPU_IDS": "none", "METRICS_SYSTEM": "false", "GRPC_ENABLED": "false", "WORKERS_SPARE": "0"}
    if _LOADING in os.environ:
        given["DEFAULTS_STARTUP_TIMEOUT"] = os.environ[_LOADING]
    given.update(settings or {})
    env = {**kept, **{f"MLSERVE_{name}": str(value) for name, value in given.items()}, "TMPDIR": str(temp), _MARK: mark}
    line = [*command(python), "start", "--model-store", str(store or directory), "--pid-file", str(pid_file), *args]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*line, *(["--models", *models] if models else [])],
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    server = LiveServer(process, log, temp, pid_file, mark)
    try:
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        for left in server.family():
            with contextlib.suppress(psutil.Error):
                left.kill()
        process.wait()


@contextlib.contextmanager
def running(directory: Path, *models: str, **options: Any) -> Iterator[LiveServer]:
    """:func:`launched`, and ready. On leaving it must end with code 0 and leave nothing behind.

    It has been asked for its metrics once: the first such request takes as long as importing aiohttp, while what a test
    wants to see in the second one may be over.
    """
    with launched(directory, *models, **options) as server:
        wait_ready(server)
        if server.addresses["metrics"].startswith("http://"):
            server.request("GET", "/", api="metrics")
        yield server
        if server.process.poll() is None:
            assert server.stop() == 0, server.log_text()


def wait_ready(server: LiveServer, state: str = "ready", seconds: float = STARTUP) -> None:
    """Return when the pid file says ``state``; it also says where the server listens."""

    def there() -> bool:
        if server.process.poll() is not None:
            pytest.fail(f"the server ended with code {server.process.returncode}:\n{server.log_text()}")
        with contextlib.suppress(OSError, ValueError):
            info = json.loads(server.pid_file.read_text())
            server.addresses = info["addresses"]
            return bool(info["state"] == state and "metrics" in info["addresses"])
        return False

    server.wait_for(there, seconds)
