"""A server behind the ``torchserve`` command, ours or the real one, as the compatibility tests need it.

The same settings file, archives and requests go to both; which one it is, only :func:`commands` knows.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlserve.cli.shims.install import install_shims
from support.server import Reply

OURS, THEIRS = "mlserve", "torchserve"
APIS = ("inference", "management", "metrics")
READY = 90.0  # seconds; a JVM beside a busy machine takes its time

NOOP = """
def handle(data, context):
    return None if data is None else ["OK"] * len(data)
"""
CLASS = """
class Handler:
    def initialize(self, context):
        self.context = context

    def handle(self, data, context):
        return ["OK"] * len(data)
"""


def commands(against: str, directory: Path) -> Path:
    """The folder to put first on PATH. Skips where the real TorchServe is asked for and is not there."""
    if against == OURS:
        folder = directory / "bin"
        install_shims(folder)
        return folder
    found = shutil.which("torchserve")
    if found is None:
        pytest.skip("torchserve is not on PATH")
    return Path(found).parent


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def archive(
    store: Path, name: str, source: str, *, version: str | None = "1.0", file: str = "", handler: str = "", **more: Any
) -> Path:
    """Write ``name.mar`` with one handler file; ``version`` None leaves the manifest out."""
    path = store / (file or f"{name}.mar")
    module = f"{name.replace('-', '_').replace('.', '_')}_handler.py"
    model = {"modelName": name, "handler": handler or module, "modelVersion": version, **more.pop("model", {})}
    manifest = {"createdOn": "01/01/2024 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    with zipfile.ZipFile(path, "w") as packed:
        if version is not None:
            packed.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        named = handler.partition(":")[0]
        packed.writestr(named if named.endswith(".py") else module, source)
        for member, text in more.items():
            packed.writestr(member.replace("__", "."), text)
    return path


def make_pair(directory: Path) -> tuple[Path, Path]:
    """A certificate for localhost and its key."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*new, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


@dataclass
class DropIn:
    """A running server. ``ours`` tells which, for the cases in the table of differences; with ``tls`` all is https."""

    ours: bool
    ports: dict[str, int]
    store: Path
    directory: Path
    log: Path
    tls: ssl.SSLContext | None = None

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        api: str = "inference",
    ) -> Reply:
        """One request on a connection of its own."""
        where = ("127.0.0.1", self.ports[api])
        if self.tls is None:
            connection = http.client.HTTPConnection(*where, timeout=60)
        else:
            connection = http.client.HTTPSConnection(*where, timeout=60, context=self.tls)
        try:
            connection.request(method, path, body.encode() if isinstance(body, str) else body, dict(headers or {}))
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, fields, response.read())
        finally:
            connection.close()

    def manage(self, method: str, path: str, body: bytes | str | None = None, **headers: str) -> Reply:
        """One request to the management API."""
        return self.ask(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()}, "management")

    def status(self, method: str, path: str) -> str:
        """The status text of a management call that must succeed."""
        reply = self.manage(method, path)
        assert reply.status in (200, 202), reply
        return str(reply.json()["status"])


def environment(against: str, directory: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which ``torchserve`` is the chosen one, with temporary files of its own."""
    temp = directory / "tmp"
    temp.mkdir(parents=True, exist_ok=True)
    folder = commands(against, directory)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLSERVE_", "TS_"))}
    path = os.pathsep.join((str(folder), str(Path(sys.executable).parent), kept["PATH"]))
    return {**kept, "PATH": path, "TMPDIR": str(temp), "TEMP": str(temp), **(more or {})}


def write_config(directory: Path, settings: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Write ``config.properties`` with ``settings`` and free ports; returns the ports."""
    numbers = free_ports(5)
    ports = dict(zip((*APIS, "grpc_inference", "grpc_management"), numbers, strict=True))
    lines = {f"{api}_address": f"http://127.0.0.1:{ports[api]}" for api in APIS}
    lines |= {f"{api}_port": ports[api] for api in ("grpc_inference", "grpc_management")}
    lines |= {"default_workers_per_model": 1, "number_of_gpu": 0, **(settings or {})}
    (directory / "config.properties").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    return ports


@contextlib.contextmanager
def drop_in(
    against: str,
    directory: Path,
    store: Path,
    settings: Mapping[str, Any] | None = None,
    *flags: str,
    environ: Mapping[str, str] | None = None,
    snapshots: bool = False,
    again: DropIn | None = None,
) -> Iterator[DropIn]:
    """Start a server with ``settings`` as its config.properties, and end it, by force if need be.

    ``again`` names a server that has been here before: then no settings file is named or written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    env = environment(against, directory, environ)
    ports = again.ports if again else write_config(directory, settings)
    log = directory / "server.log"
    words = ["torchserve", "--start", "--foreground", "--model-store", str(store)]
    words += [] if snapshots else ["--ncs"]
    words += [] if again else ["--ts-config", str(directory / "config.properties")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*words, *flags], cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait_ready(process, log)
        yield DropIn(against == OURS, ports, store, directory, log)
    finally:
        family = [process.pid]
        with contextlib.suppress(psutil.NoSuchProcess):  # it did not start
            family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        # --stop waits for the end of the server, a child of this process, which therefore has to be reaped meanwhile
        stopping = subprocess.Popen(["torchserve", "--stop", "--foreground"], cwd=directory, env=env)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with contextlib.suppress(subprocess.TimeoutExpired):
            stopping.wait(30)
        stopping.kill()
        stopping.wait()
        for pid in family:
            with contextlib.suppress(psutil.Error):
                psutil.Process(pid).kill()
        process.wait()


def _wait_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + READY
    while b"Model server started." not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"the server did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)
