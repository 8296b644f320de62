"""TorchServe's commands as scripts call them: what they print, return and leave behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlserve.cli.shims.install import install_shims

HANDLER = "def handle(data, context):\n    return None if data is None else ['served'] * len(data)\n"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Scripts:
    """A folder with the shims first on PATH, a model store, and a configuration with free ports."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.store = root / "store"
        self.temp = root / "tmp"
        for folder in (self.store, self.temp):
            folder.mkdir()
        install_shims(self.bin)
        (root / "h.py").write_text(HANDLER)
        self.inference, self.management, metrics, grpc, grpc_management = free_ports(5)
        self.config = root / "config.properties"
        self.config.write_text(
            f"inference_address=http://127.0.0.1:{self.inference}\nmanagement_address=http://127.0.0.1:{self.management}\n"
            f"metrics_address=http://127.0.0.1:{metrics}\ngrpc_inference_port={grpc}\n"
            f"grpc_management_port={grpc_management}\nnumber_of_gpu=0\ndefault_workers_per_model=1\n"
        )
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MLSERVE_", "TS_"))},
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.bin),
            "TMPDIR": str(self.temp),
            "TEMP": str(self.temp),
        }

    def call(self, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
        """Run a command; its output goes to a file, because a server that it starts keeps a pipe open."""
        output = self.root / f"{words[0]}.{time.monotonic_ns()}.out"
        with output.open("w") as file:
            done = subprocess.run(
                words, cwd=self.root, env=self.env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=60
            )
        done.stdout = output.read_text()
        self.last = output
        return done

    def start(self, *more: str) -> subprocess.CompletedProcess[str]:
        words = ("--start", "--ts-config", str(self.config), "--model-store", str(self.store), *more)
        return self.call("torchserve", *words)

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + 60
        while text not in self.last.read_text():
            assert time.monotonic() < until, self.last.read_text()
            time.sleep(0.05)


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    rig = Scripts(tmp_path)
    yield rig
    rig.call("torchserve", "--stop", "--foreground")
    ours = [one for one in psutil.process_iter() if _env(one).get("TMPDIR") == str(rig.temp)]
    _, left = psutil.wait_procs(ours, timeout=30)  # `--stop` alone waits for nothing
    assert not left, f"processes are left: {left}"


def _env(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ() if process.status() != psutil.STATUS_ZOMBIE else {}
    except psutil.Error:
        return {}


def test_a_script_archives_starts_asks_and_stops_with_torchserves_words(scripts: Scripts) -> None:
    words = ("--model-name", "m", "--version", "1.0", "--handler", "h.py", "--export-path", str(scripts.store))
    assert scripts.call("torch-model-archiver", *words).returncode == 0
    again = scripts.call("torch-model-archiver", *words)
    assert again.returncode == 1
    assert "ModelArchiverError" in again.stdout
    assert scripts.call("torch-model-archiver", *words, "-f").returncode == 0
    assert scripts.call("torchserve", "--version").stdout == "TorchServe Version is 0.12.0\n"
    assert scripts.call("torchserve", "--stop").stdout == "TorchServe is not currently running.\n"

    assert scripts.start("--models", "m.mar", "--ncs", "--disable-token-auth").returncode == 0
    scripts.wait_for("Model server started.\n")
    second = scripts.call("torchserve", "--start", "--model-store", str(scripts.store))
    assert (second.returncode, second.stdout.split(",")[0]) == (1, "TorchServe is already running")
    url = f"http://127.0.0.1:{scripts.inference}/predictions/m"
    with urllib.request.urlopen(urllib.request.Request(url, b"x"), timeout=30) as reply:
        assert reply.read() == b"served"
    assert sorted(path.name for path in (scripts.root / "logs").glob("*.log")) == [
        "access_log.log", "model_log.log", "model_metrics.log", "ts_log.log", "ts_metrics.log",
    ]  # fmt: skip
    pid_file = scripts.temp / ".model_server.pid"
    assert psutil.pid_exists(int(pid_file.read_text()))
    stopped = scripts.call("torchserve", "--stop")
    assert (stopped.returncode, stopped.stdout) == (0, "TorchServe has stopped.\n")
    assert not pid_file.exists()


def test_a_parent_that_reaps_no_children_does_not_hold_up_the_stop(scripts: Scripts) -> None:
    words = ("torchserve", "--foreground", "--ncs", "--ts-config", str(scripts.config), "--model-store", ".")
    with (scripts.root / "server.out").open("w") as output:
        server = subprocess.Popen(words, cwd=scripts.root, env=scripts.env, stdout=output, stderr=output)
    scripts.last = scripts.root / "server.out"
    scripts.wait_for("Model server started.")
    stopped = scripts.call("torchserve", "--stop", "--foreground")  # within the 60 s that this call may take
    assert (stopped.returncode, stopped.stdout) == (0, "")
    assert psutil.Process(server.pid).status() == psutil.STATUS_ZOMBIE
    assert server.wait(5) == 0


def test_what_the_launcher_refuses_it_names_and_starts_nothing(scripts: Scripts) -> None:
    for words, says in (
        ((), "Missing mandatory parameter --model-store"),
        (("--model-store", "nowhere"), "--model-store directory not found: nowhere"),
        (("--model-store", ".", "--ts-config", "none"), "--ts-config file not found: none"),
        (("--model-store", ".", "--workflow-store", "none"), "--workflow-store directory not found: none"),
        (("--model-store", ".", "--log-config", "none"), "--log-config file not found: "),
    ):
        done = scripts.call("torchserve", "--start", *words)
        assert (done.returncode, says in done.stdout) == (1, True), done.stdout
    assert scripts.call("torchserve", "--start", "--stop").returncode == 2
    assert scripts.call("torch-model-archiver", "--model-name", "m").returncode == 2


def test_an_orphaned_pid_file_does_not_keep_a_server_from_starting(scripts: Scripts) -> None:
    (scripts.temp / ".model_server.pid").write_text("4194303")
    done = scripts.start("--ncs")
    assert (done.returncode, "Removing orphan pid file." in done.stdout) == (0, True)
    scripts.wait_for("Model server started.")


def test_a_server_in_the_foreground_says_why_it_cannot_start_and_fails(scripts: Scripts) -> None:
    with socket.create_server(("127.0.0.1", scripts.inference)):
        done = scripts.start("--foreground", "--ncs")
    assert done.returncode == 1
    assert f"{scripts.inference}" in done.stdout
    scripts.config.write_text("inference_address=nonsense\n")
    done = scripts.start("--foreground", "--ncs")
    assert (done.returncode, "Invalid configuration: config.properties:1: inference_address" in done.stdout) == (
        1,
        True,
    )


def test_python_scripts_find_the_archiver_the_launcher_and_the_handler_classes(scripts: Scripts) -> None:
    code = f"""
import sys
from model_archiver import ModelArchiver, ModelArchiverConfig
from model_archiver.model_archiver_error import ModelArchiverError
from ts import launcher
from ts.version import __version__
from ts.torch_handler.base_handler import BaseHandler
config = ModelArchiverConfig(model_name="p", version="2", handler="h.py", export_path={str(scripts.store)!r})
ModelArchiver.generate_model_archive(config)
try:
    ModelArchiver.generate_model_archive(config)
except ModelArchiverError:
    print("refused")
print(__version__, BaseHandler.__name__)
launcher.stop()
lines = launcher.start(model_store={str(scripts.store)!r}, snapshot_file={str(scripts.config)!r},
                       no_config_snapshots=True, models="p.mar", disable_token=True, enable_model_api=True)
launcher.stop()
while lines.get(timeout=60) is not None:
    pass
"""
    done = scripts.call(sys.executable, "-c", code)
    assert done.returncode == 0, done.stdout
    assert "refused\n0.12.0 BaseHandler\n" in done.stdout
    assert "Model server started." in done.stdout


def test_a_workflow_archive_holds_what_torchserve_looks_for(scripts: Scripts) -> None:
    (scripts.root / "spec.yaml").write_text("models: {}\ndag:\n  f: []\n")
    words = (
        "--workflow-name",
        "w",
        "--spec-file",
        "spec.yaml",
        "--handler",
        "h.py",
        "--export-path",
        str(scripts.store),
    )
    assert scripts.call("torch-workflow-archiver", *words).returncode == 0
    assert scripts.call("torch-workflow-archiver", *words).returncode == 1
    with zipfile.ZipFile(scripts.store / "w.war") as archive:
        assert sorted(archive.namelist()) == ["WAR-INF/MANIFEST.json", "h.py", "spec.yaml"]
        manifest = json.loads(archive.read("WAR-INF/MANIFEST.json"))
    assert manifest["workflow"] == {"workflowName": "w", "specFile": "spec.yaml", "handler": "h.py"}


def test_files_of_somebody_else_are_not_replaced_by_the_shims(tmp_path: Path) -> None:
    (tmp_path / "torchserve").write_text("#!/bin/sh\n")
    with pytest.raises(BaseException, match="1"):
        install_shims(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["torchserve"]
    install_shims(tmp_path, force=True)
    assert "mlserve" in (tmp_path / "torchserve").read_text()
