"""``torchserve``: the command that TorchServe's users have in their scripts, Dockerfiles and unit files.

It returns at once and leaves the server writing to the standard output it was given, where launchers wait for the line
``Model server started.``; the pid file is a plain number in the temporary directory. With ``--foreground`` the server
is this very process, so that a container's stop signal reaches it; a server that cannot start then ends with 1 (in
TorchServe with 0).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from mlserve.protocols.torchserve_texts import TORCHSERVE_VERSION

MODULE = "mlserve.cli.shims.torchserve"
SERVE = "--serve-as"  # the server process itself, under
NAME = "org.pytorch.serve.ModelServer"  # the word by which SageMaker's containers and probes find the process
STOP_WAIT = 60.0  # seconds that `--stop --foreground` waits


def parser() -> argparse.ArgumentParser:
    """The command line. Wrong usage ends the process with 2."""
    parser = argparse.ArgumentParser(prog="torchserve", description="Start or stop a model server (mlserve).")
    verbs = parser.add_mutually_exclusive_group(required=False)
    verbs.add_argument("-v", "--version", action="store_true", help="print the version")
    verbs.add_argument("--start", action="store_true", help="start the server (the default)")
    verbs.add_argument("--stop", action="store_true", help="stop the server")
    add = parser.add_argument
    add("--ts-config", help="config.properties")
    add("--model-store", help="directory of archives")
    add("--workflow-store", help="directory of workflow archives; default: the model store")
    add("--models", nargs="+", metavar="[NAME=]ARCHIVE", help="models to load; ALL for every archive of the store")
    add("--log-config", help="log4j2 file: accepted, not read")
    add("--cpp-log-config", help="accepted, not read")
    add("--foreground", action="store_true", help="stay attached; with --stop: wait for the end")
    add("--no-config-snapshots", "--ncs", action="store_true", help="neither write nor restore snapshots")
    add("--plugins-path", "--ppath", help="Java plugins: accepted, not loaded")
    add("--disable-token-auth", "--dt", action="store_true", help="ask for no tokens")
    add("--enable-model-api", action="store_true", help="let clients register and unregister models")
    add(SERVE, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    if options.serve_as:
        return _serve(options)
    if options.version:
        print(f"TorchServe Version is {TORCHSERVE_VERSION}")
        return 0
    pid_file = PidFile(Path(tempfile.gettempdir()) / ".model_server.pid")
    running = pid_file.server()
    if options.stop:
        return _stop(running, pid_file, wait=options.foreground)
    if running is not None:
        print("TorchServe is already running, please use torchserve --stop to stop TorchServe.")
        return 1
    if (problem := _problem(options)) is not None:
        print(problem)
        return 1
    if options.foreground:
        pid_file.write(os.getpid())
        try:
            return _serve(options)
        finally:
            pid_file.remove(os.getpid())
    child = subprocess.Popen(
        [sys.executable, "-m", MODULE, SERVE, NAME, *given], stdin=subprocess.DEVNULL, start_new_session=True
    )
    pid_file.write(child.pid)
    child.returncode = 0  # it outlives this process on purpose
    return 0


class PidFile:
    """TorchServe's pid file: a number."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def server(self) -> psutil.Process | None:
        """The server that the file names; None if there is none, and then an orphaned file is removed."""
        try:
            text = self.path.read_text().split("\n")[0]
        except FileNotFoundError:
            return None
        with contextlib.suppress(ValueError, psutil.Error):
            process = psutil.Process(int(text))
            if process.status() != psutil.STATUS_ZOMBIE:
                return process if _is_server(process) else None
        print("Removing orphan pid file.")
        self.path.unlink(missing_ok=True)
        return None

    def write(self, pid: int) -> None:
        """Replace the file, not what a link of that name points to: the directory is everybody's."""
        self.path.unlink(missing_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "w") as file:
            file.write(str(pid))

    def remove(self, pid: int) -> None:
        """Remove the file if it is still about ``pid``."""
        with contextlib.suppress(OSError):
            if self.path.read_text().strip() == str(pid):
                self.path.unlink()


def _is_server(process: psutil.Process) -> bool:
    """A server in the background, TorchServe's own included, or a command that is one itself (``--foreground``)."""
    words = process.cmdline()
    return NAME in words or ("--foreground" in words and any(Path(word).name == "torchserve" for word in words))


def _stop(running: psutil.Process | None, pid_file: PidFile, *, wait: bool) -> int:
    if running is None:
        print("TorchServe is not currently running.")
        return 0
    try:
        running.terminate()
        Path("key_file.json").unlink(missing_ok=True)
        if wait:
            if not _ended(running, STOP_WAIT):
                print("Stopping TorchServe took too long.")
        else:
            print("TorchServe has stopped.")
    except (OSError, psutil.Error):
        print("TorchServe already stopped.")
    pid_file.path.unlink(missing_ok=True)
    return 0


def _ended(process: psutil.Process, timeout: float) -> bool:
    """Wait for the end, which a parent that never reaps its children (a container's first process) does not hold up."""
    deadline = time.monotonic() + timeout
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
    return True


def _problem(options: argparse.Namespace) -> str | None:
    """What TorchServe's launcher refuses before it starts anything."""
    if options.log_config and not os.path.isfile(os.path.realpath(options.log_config)):
        return f"--log-config file not found: {os.path.realpath(options.log_config)}"
    temp = os.environ.get("TEMP")
    if temp and not os.path.isdir(temp):
        return f"Invalid temp directory: {temp}, please check TEMP environment variable."
    config = os.environ.get("TS_CONFIG_FILE") or options.ts_config
    if config and not os.path.isfile(config):
        return f"--ts-config file not found: {config}"
    store = options.model_store or (_store_of(Path(config)) if config else "")
    if not store:
        return "Missing mandatory parameter --model-store"
    if not os.path.isdir(store):
        return f"--model-store directory not found: {store}"
    if options.workflow_store and not os.path.isdir(options.workflow_store):
        return f"--workflow-store directory not found: {options.workflow_store}"
    if options.cpp_log_config and not os.path.isfile(os.path.realpath(options.cpp_log_config)):
        return f"--cpp-log-config file not found: {os.path.realpath(options.cpp_log_config)}"
    return None


def _store_of(config: Path) -> str:
    from mlserve.settings.properties import PropertiesError, read_properties

    try:
        values = {key: value for key, value, _ in read_properties(config, os.environ)}
    except (PropertiesError, OSError):
        return ""  # the server says what is wrong with the file
    return values.get("model_store", "")


def _serve(options: argparse.Namespace) -> int:
    from mlserve.cli.shims.serving import serve

    return serve(options)


if __name__ == "__main__":
    sys.exit(main())
