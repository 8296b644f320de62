"""Start, pause and stop servers under measurement: a launcher in a session of its own, free ports, its processes."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mlserve.cli.ending import held

BYTES = {"Content-Type": "application/octet-stream"}


@dataclass
class Server:
    """A running server: its name in the table, the base URL of its inference port, its launcher and its log."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    started: float  # time.perf_counter() just before its launch
    ports: dict[str, int] = field(default_factory=dict)  # others than that of ``url``
    paused: bool = False
    leftovers: Path | None = None  # a folder to remove when it has stopped

    def family(self) -> list[psutil.Process]:
        """Its processes, the launcher first: all of its session, and their children in sessions of their own."""
        found = {}
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found |= {one.pid: one for one in (process, *process.children(recursive=True))}
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return sorted(found.values(), key=lambda process: (process.pid != self.process.pid, process.pid))

    def wait_ready(self, ask: Callable[[], bool], seconds: float = 180) -> float:
        """Seconds from the launch to the first 200; raises RuntimeError with the log's end if that takes too long."""
        until = time.perf_counter() + seconds
        while not ask():
            if self.process.poll() is not None or time.perf_counter() > until:
                raise RuntimeError(f"{self.name} did not get ready:\n{self.last_lines()}")
            time.sleep(0.005)
        return time.perf_counter() - self.started

    def last_lines(self, count: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def cpu_seconds(self) -> float:
        """User and system time of its processes so far."""
        total = 0.0
        for process in self.family():
            try:
                total += sum(process.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue
        return total

    def settle(self, seconds: float = 10) -> None:
        """Return once it has worked off what clients that are gone had asked for: at under a fifth of a core."""
        until, window = time.monotonic() + seconds, 0.15
        used = self.cpu_seconds()
        while time.monotonic() < until:
            time.sleep(window)
            before, used = used, self.cpu_seconds()
            if used - before < 0.2 * window:
                return

    def pause(self) -> None:
        """Stop its processes for now (SIGSTOP): for a server that is busy while nobody asks it."""
        if not self.paused:
            self._signal(signal.SIGSTOP)
            self.paused = True

    def resume(self) -> None:
        """Let a paused server run again."""
        if self.paused:
            self._signal(signal.SIGCONT)
            self.paused = False
            time.sleep(0.5)

    def stop(self) -> None:
        """SIGTERM to the processes of this server, by pid; what is left after 20 s is killed. Signals wait for that."""
        with held():
            self._stop()

    def _stop(self) -> None:
        self.resume()
        family = self.family()
        # TorchServe's launcher does not pass signals on: the server is its Java child.
        for process in [child for child in family if child.name() == "java"] or family[:1]:
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 20
        while self.family() and time.monotonic() < until:
            self.process.poll()
            time.sleep(0.05)
        for process in self.family():
            process.kill()
        self.process.wait(timeout=20)
        if self.leftovers is not None:
            shutil.rmtree(self.leftovers, ignore_errors=True)

    def _signal(self, number: int) -> None:
        for process in self.family():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue


def answers(url: str, body: bytes) -> bool:
    """Whether a POST gets a 200."""
    return post(url, body, BYTES)[0] == 200


def post(url: str, body: bytes, headers: dict[str, str], timeout: float = 120) -> tuple[int, bytes]:
    """Status and body of a POST's answer; (0, b"") where nobody answers."""
    call = urllib.request.Request(url, data=body, method="POST", headers=headers)
    try:
        with urllib.request.urlopen(call, timeout=timeout) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return 0, b""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def batches(server: Server) -> tuple[float, float]:
    """(requests, batches) that the workers of an mlserve have computed; ``ports`` has its ``metrics``."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports['metrics']}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found = {
        end: sum(float(value) for value in re.findall(rf"^mlserve_batch_size_{end}{{.*}} (\S+)$", text, re.MULTILINE))
        for end in ("sum", "count")
    }
    return found["sum"], found["count"]


def launch(name: str, port: int, command: Sequence[Any], run_dir: Path, env: dict[str, str], **ports: int) -> Server:
    """Start ``command`` in ``run_dir``, in a session of its own, with its output in a file there."""
    log = run_dir / "server.log"
    words = [str(word) for word in command]
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            words,
            cwd=run_dir,
            env={**env, "TMPDIR": str(run_dir / "tmp")},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(name, f"http://127.0.0.1:{port}", process, log, started, ports)
