"""``uv`` and ``pip`` as commands: what resolves requirements, what installs them, and running either with its output.

``uv`` is taken when it is on the PATH: it resolves and installs many times faster and links files of its own cache
instead of copying them. ``pip`` is that of the server's interpreter, also for environments without one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from mlserve.errors import InvalidInput

TIMEOUT = 1800.0  # s for one command; torch alone takes minutes on a slow line
_KEPT_LINES = 20
_POLL = 0.2  # s between two looks at whether to stop
_REST = 2.0  # s for the last output of a command that has ended
_TELLING = re.compile(
    r"(Collecting|Downloading|Using cached|Building|Built|Preparing|Prepared|Installing|Installed|Resolved|Success)"
)

Say = Callable[[str], object]


class InstallFailed(Exception):
    """``lines`` are the last ones that the command wrote."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class Stopped(Exception):
    """Nobody waits for the result any more."""


class Sources(NamedTuple):
    """Where packages come from besides the index: folders of wheels; with ``offline`` from nowhere else."""

    folders: tuple[Path, ...] = ()
    offline: bool = False

    def options(self) -> list[str]:
        """As both commands spell them."""
        found = [word for folder in self.folders for word in ("--find-links", str(folder))]
        return [*found, *(["--no-index"] if self.offline else [])]


class Installer:
    """``uv``, or ``pip`` where that is not on the PATH. Raises :class:`InvalidInput` where neither is there."""

    def __init__(self) -> None:
        self._uv = shutil.which("uv") or ""
        self.name = "uv" if self._uv else "pip"
        if not self._uv and importlib.util.find_spec("pip") is None:
            raise InvalidInput(
                f"A model's requirements need uv on the PATH, or pip in {sys.executable}: there is neither"
            )

    def resolve_command(self, requirements: Path, output: Path, sources: Sources) -> list[str]:
        """Writes to ``output`` what the requirements amount to; :meth:`read_resolved` reads it."""
        if self._uv:
            words = [self._uv, "pip", "compile", "--no-header", "--no-annotate", "--python", sys.executable]
            return [*words, *self._from(sources), "--output-file", str(output), str(requirements)]
        words = [*_PIP, "install", "--dry-run", "--ignore-installed", "--report", str(output)]
        return [*words, *_PIP_QUIET, *self._from(sources), "-r", str(requirements)]

    def _from(self, sources: Sources) -> list[str]:
        offline = ["--offline"] if self._uv and sources.offline else []  # covers what wheels name by URL, too
        return [*sources.options(), *offline]

    def read_resolved(self, output: Path) -> list[str]:
        """``name==version`` or ``name @ url`` of each package, sorted."""
        text = output.read_text(encoding="utf-8")
        if self._uv:
            lines = [line.strip().removesuffix("\\").strip() for line in text.splitlines()]
            return sorted(line for line in lines if line and not line.startswith(("#", "-")))
        return sorted(_pinned(entry) for entry in json.loads(text)["install"])

    def install_command(self, python: Path, requirements: Path, pins: Path | None, sources: Sources) -> list[str]:
        """Installs into the environment of ``python``, with the versions of the constraints file ``pins``."""
        constraints = [] if pins is None else ["-c", str(pins)]
        given = [*self._from(sources), "-r", str(requirements), *constraints]
        if self._uv:
            return [self._uv, "pip", "install", "--compile-bytecode", "--python", str(python), *given]
        return [*_PIP, "--python", str(python), "install", *_PIP_QUIET, *given]


_PIP = (sys.executable, "-I", "-m", "pip")  # -I: a model's own json.py in the working directory is not to be pip's
_PIP_QUIET = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")


def _pinned(entry: dict[str, dict[str, str]]) -> str:
    name, version = entry["metadata"]["name"], entry["metadata"]["version"]
    name = re.sub(r"[-_.]+", "-", name).lower()
    return f"{name} @ {entry['download_info']['url']}" if entry.get("is_direct") else f"{name}=={version}"


def run(command: Sequence[str], *, cwd: Path, say: Say, stop: threading.Event, hold: int) -> None:
    """Run a command to its end; its progress goes line by line to ``say``.

    ``hold`` is a file descriptor that it inherits: a lock that outlives us with it. Raises :class:`InstallFailed`, and
    :class:`Stopped` once ``stop`` is set, when the command and what it started are gone.
    """
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        pass_fds=(hold,),
    )
    assert process.stdout is not None
    reader = threading.Thread(target=_read, args=(process.stdout, lines, say), daemon=True)
    reader.start()
    deadline = time.monotonic() + TIMEOUT
    try:
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if stop.wait(_POLL):
                raise Stopped
            if time.monotonic() > deadline:
                raise InstallFailed([*lines, f"{Path(command[0]).name} had not ended after {TIMEOUT:g} s"])
    finally:
        # Also after it has ended, for what it started. Its number is nobody else's before it is waited for.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(_REST)  # not until it ends: a process with a session of its own may hold the pipe
    if process.returncode:
        raise InstallFailed(list(lines) or [f"exit status {process.returncode}"])


def _read(stream: IO[str], lines: deque[str], say: Say) -> None:
    with stream:
        for line in stream:
            if line := line.rstrip():
                lines.append(line)
            if _TELLING.match(line.lstrip()):
                say(line.strip())
