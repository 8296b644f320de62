"""The ``torchserve`` command: what it prints and returns, the pid file, the ready line, the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from support.drop_in import NOOP, OURS, archive, commands, free_ports

NOT_RUNNING = "TorchServe is not currently running.\n"
READY = "Model server started."


class Shell:
    """A folder with a model store and a configuration, whose temporary directory is its own."""

    def __init__(self, against: str, root: Path) -> None:
        self.root = root
        self.temp = root / "tmp"
        self.pid_file = self.temp / ".model_server.pid"
        for name in ("tmp", "store"):
            (root / name).mkdir()
        archive(root / "store", "noop", NOOP)
        folder = commands(against, root)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLSERVE_", "TS_"))}
        self.env = kept | {
            "PATH": os.pathsep.join((str(folder), str(Path(sys.executable).parent), kept["PATH"])),
            "TMPDIR": str(self.temp),
            "TEMP": str(self.temp),
            "LOG_LOCATION": str(root / "moved"),
            "METRICS_LOCATION": str(root / "numbers"),
        }
        apis = ("inference_address", "management_address", "metrics_address")
        ports = free_ports(5)
        lines = [f"{api}=http://127.0.0.1:{port}" for api, port in zip(apis, ports, strict=False)]
        lines += [f"grpc_inference_port={ports[3]}", f"grpc_management_port={ports[4]}", "number_of_gpu=0"]
        lines += ["default_workers_per_model=1", "model_store=store"]
        (root / "config.properties").write_text("\n".join(lines) + "\n")

    def run(self, *words: str, **env: str) -> tuple[int, str]:
        """Exit code and output. It goes to a file, because a server that is started keeps it open."""
        output = self.root / f"{time.monotonic_ns()}.out"
        with output.open("wb") as file:
            done = subprocess.run(
                ["torchserve", *words], cwd=self.root, env={**self.env, **env}, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, timeout=100, check=False, umask=0o022,
            )  # fmt: skip
        self.output = output
        return done.returncode, output.read_text()


@pytest.fixture
def shell(against: str, tmp_path: Path) -> Iterator[Shell]:
    """The command's surroundings; a server that is left is ended."""
    shell = Shell(against, tmp_path)
    yield shell
    if shell.pid_file.exists():
        shell.run("--stop", "--foreground")


def test_a_version_is_told_and_nothing_is_stopped(shell: Shell) -> None:
    assert shell.run("--version") == (0, "TorchServe Version is 0.12.0\n")
    assert shell.run("-v") == (0, "TorchServe Version is 0.12.0\n")
    assert shell.run("--stop") == (0, NOT_RUNNING)


@pytest.mark.parametrize(
    "words", [("--start", "--stop"), ("--stop", "--version"), ("--models",), ("--no-such-flag",)], ids=str
)
def test_wrong_usage_ends_with_2(shell: Shell, words: Sequence[str]) -> None:
    code, said = shell.run(*words)
    assert (code, "usage: torchserve" in said) == (2, True)


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (("--start",), {}, "Missing mandatory parameter --model-store\n"),
        (("--model-store", "none"), {}, "--model-store directory not found: none\n"),
        (("--model-store", "store", "--ts-config", "none"), {}, "--ts-config file not found: none\n"),
        (("--model-store", "store"), {"TS_CONFIG_FILE": "gone"}, "--ts-config file not found: gone\n"),
        (("--model-store", "store", "--workflow-store", "none"), {}, "--workflow-store directory not found: none\n"),
        (("--model-store", "store", "--log-config", "/none"), {}, "--log-config file not found: /none\n"),
        (("--model-store", "store", "--cpp-log-config", "/none"), {}, "--cpp-log-config file not found: /none\n"),
        (("--model-store", "store"), {"TEMP": "/none"}, "Invalid temp directory: /none, please check TEMP"),
    ],
)
def test_what_is_missing_is_named_before_anything_starts(
    shell: Shell, words: Sequence[str], env: dict[str, str], said: str
) -> None:
    code, output = shell.run(*words, **env)
    assert (code, output.startswith(said)) == (1, True), output
    assert not shell.pid_file.exists()


def test_a_server_starts_in_the_background_once_and_stops(shell: Shell, against: str) -> None:
    shell.pid_file.write_text("4194303")
    code, said = shell.run("--start", "--ncs", "--ts-config", "config.properties", "--models", "noop.mar")
    assert (code, said.startswith("Removing orphan pid file.\n")) == (0, True)
    output, until = shell.output, time.monotonic() + 90
    while READY not in output.read_text():
        assert time.monotonic() < until, output.read_text()
        time.sleep(0.05)
    assert f"\n{READY}\n" in output.read_text(), "the ready line is not a line of its own"
    number = int(shell.pid_file.read_text())
    assert "org.pytorch.serve.ModelServer" in psutil.Process(number).cmdline(), "SageMaker's toolkit looks for it"
    assert (shell.root / "key_file.json").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in (shell.root / "moved").glob("*.log")} == {
        "access_log.log",
        "model_log.log",
        "ts_log.log",
    }
    assert {path.name for path in (shell.root / "numbers").glob("*.log")} == {"model_metrics.log", "ts_metrics.log"}
    for log in (*(shell.root / "moved").glob("*.log"), *(shell.root / "numbers").glob("*.log")):
        assert log.stat().st_mode & 0o777 == 0o644, "what ships logs cannot read it"
    again = shell.run("--start", "--model-store", "store")
    assert again == (1, "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n")

    assert shell.run("--stop") == (0, "TorchServe has stopped.\n")
    assert not shell.pid_file.exists()
    assert not (shell.root / "key_file.json").exists()
    until = time.monotonic() + 60
    while psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert shell.run("--stop") == (0, NOT_RUNNING)
    assert against != OURS or not list(shell.temp.glob("mlserve-*")), "the unpacked models are left"


@pytest.mark.parametrize(("word", "ended"), [("org.pytorch.serve.ModelServer", True), ("torchserve", False)])
def test_stop_ends_any_server_of_the_pid_file_and_nothing_else(shell: Shell, word: str, ended: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", word]) as other:
        try:
            shell.pid_file.write_text(str(other.pid))
            assert shell.run("--stop") == (0, "TorchServe has stopped.\n" if ended else NOT_RUNNING)
            if ended:
                assert other.wait(10) == -signal.SIGTERM
            else:
                assert other.poll() is None
        finally:
            other.kill()
            shell.pid_file.unlink(missing_ok=True)
