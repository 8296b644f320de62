"""A command that is told to end leaves a server, a worker, or what a handler has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

HANDLER = """
import os, subprocess, time
from pathlib import Path

NOTES = Path(os.environ["NOTES"])

class Handler:
    def initialize(self, context):
        child = subprocess.Popen(["sleep", "1000"])
        (NOTES / "new").write_text(f"{os.getpid()} {os.getppid()} {child.pid}")
        (NOTES / "new").rename(NOTES / f"loading-{os.getpid()}")
        time.sleep(0.3)

    def handle(self, data, context):
        (NOTES / f"asked-{os.getpid()}").touch()
        time.sleep(0.02)
        return [row["body"] for row in data]
"""
TUNE = ("tune", "noting.py", "--slo=p50=10s", "-d", "1", "--max-batch=1", "--workers=1", "--threads=1", "--time=60s")
START = ("start", "--detach", "--models=noting.py", "--no-grpc", *(f"--{api}-port=0" for api in ("inference",)))
START += ("--management-port=0", "--metrics-port=0", "--pid-file=pid", "--log-file=log")
BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")  # as a script's shell starts what "&" follows
VALIDATE = ("validate", "noting.py", "-d", "1", "--batch-size=1000")


class Command:
    """``mlserve`` in a folder of its own, and what the workers of the handler there have noted."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], *, background: bool = False) -> None:
        self.notes, self.temporary = folder / "notes", folder / "tmp"
        for each in (self.notes, self.temporary):
            each.mkdir()
        (folder / "noting.py").write_text(HANDLER)
        environ = {"PATH": "/usr/bin:/bin", "TMPDIR": str(self.temporary), "HOME": str(folder)}
        environ |= {"NOTES": str(self.notes)}
        environ |= {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
        self.process = subprocess.Popen(
            [*(BACKGROUND if background else ()), sys.executable, "-m", "mlserve", *arguments],
            cwd=folder, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def workers(self, *, own: bool, begun: str = "loading") -> list[int]:
        """Those that the command has started itself, or those of a server that it has started."""
        found = [list(map(int, note.read_text().split())) for note in self.notes.glob("loading-*")]
        mine = [pid for pid, parent, _ in found if (parent == self.process.pid) == own]
        return [pid for pid in mine if (self.notes / f"{begun}-{pid}").exists()]

    def wait_for(self, seen: Callable[[], object]) -> None:
        until = time.monotonic() + 90
        while not seen():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)

    def left(self) -> list[int]:
        """Everything that has been noted, servers included, and runs."""
        noted = {int(pid) for note in self.notes.glob("loading-*") for pid in note.read_text().split()}
        return [pid for pid in noted if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]

    def clear(self) -> None:
        """Leave nothing, whatever came of it."""
        self.process.kill()
        self.process.communicate()
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("arguments", "phase", "number"),
    [
        (TUNE, {"own": True}, signal.SIGTERM),
        (TUNE, {"own": False}, signal.SIGTERM),
        (TUNE, {"own": False, "begun": "asked"}, signal.SIGTERM),
        (TUNE, {"own": False, "begun": "asked"}, signal.SIGHUP),
        (TUNE, {"own": False, "begun": "asked"}, signal.SIGINT),
        (VALIDATE, {"own": True, "begun": "asked"}, signal.SIGHUP),
        (START, {"own": False}, signal.SIGTERM),
    ],
    ids=["measuring", "starting", "verifying", "verifying-hup", "verifying-int", "validate", "detach"],
)
def test_what_a_command_has_started_outlives_it(
    arguments: tuple[str, ...], phase: dict[str, object], number: signal.Signals, tmp_path: Path
) -> None:
    command = Command(tmp_path, arguments)
    try:
        command.wait_for(lambda: command.workers(**phase))  # type: ignore[arg-type]
        command.process.send_signal(number)
        if number != signal.SIGINT:  # which somebody means when it comes again
            command.process.send_signal(number)
        _, error = command.process.communicate(timeout=60)
        assert command.process.returncode == 128 + number, error
        assert "Traceback" not in error
        assert command.left() == []
        assert list(command.temporary.iterdir()) == []
    finally:
        command.clear()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_job_in_the_background_of_a_script_leaves_its_worker(number: signal.Signals, tmp_path: Path) -> None:
    command = Command(tmp_path, TUNE, background=True)
    try:
        command.wait_for(lambda: command.workers(own=True))
        command.process.send_signal(signal.SIGINT)  # which such a job does not hear
        command.wait_for(lambda: command.workers(own=True, begun="asked"))
        command.process.send_signal(number)
        _, error = command.process.communicate(timeout=60)
        assert command.process.returncode == 128 + number, error
        assert "Traceback" not in error
        assert command.left() == []
    finally:
        command.clear()
