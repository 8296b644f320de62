"""Start and stop the two servers under measurement, each as installed but for what makes them comparable.

Both listen on free ports of 127.0.0.1, serve the same model store, take batch size, delay and workers from the
archives, and write their logs to files. TorchServe: no tokens, no snapshots, no system-metrics script every minute.
"""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil

TORCHSERVE_PACKAGES = ["torch==2.13.0", "torchserve==0.12.0", "torch-model-archiver==0.12.0"]
# What TorchServe's own modules import but its wheel does not ask for, and what the measured handler needs.
TORCHSERVE_PACKAGES += ["pyyaml", "psutil", "requests", "Pillow", "packaging", "numpy", "setuptools<81"]
MODELS = ("noop", "classify")
BYTES = {"Content-Type": "application/octet-stream"}


@dataclass
class Server:
    """A running server: its name in the table, the base URL of its inference port, its launcher and its log."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_ready(self, body: bytes, seconds: float = 120) -> None:
        """Return once every model answers 200; raises RuntimeError with the log's end if that takes too long."""
        until = time.monotonic() + seconds
        for model in MODELS:
            while not answers(f"{self.url}/predictions/{model}", body):
                if self.process.poll() is not None or time.monotonic() > until:
                    end = "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])
                    raise RuntimeError(f"{self.name} did not get ready with model {model}:\n{end}")
                time.sleep(0.2)

    def stop(self) -> None:
        """SIGTERM to the processes of this server, by pid; what is left after 20 s is killed."""
        if self.process.poll() is not None:
            return
        main = psutil.Process(self.process.pid)
        family = main.children(recursive=True)
        # TorchServe's launcher does not pass signals on: the server is its Java child.
        for process in [child for child in family if child.name() == "java"] or [main]:
            process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        _, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            process.kill()


def answers(url: str, body: bytes) -> bool:
    """Whether a POST gets a 200."""
    request = urllib.request.Request(url, data=body, method="POST", headers=BYTES)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


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


def install_torchserve(scratch: Path, python: str) -> Path:
    """TorchServe 0.12 in a virtual environment of its own under ``scratch``; returns its folder. Needs Java 17."""
    try:
        subprocess.run(["java", "-version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError("java was not found; on Debian: apt-get install -y openjdk-17-jre-headless") from error
    venv, wanted = scratch / "torchserve", "\n".join(TORCHSERVE_PACKAGES)
    stamp = venv / ".stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing TorchServe 0.12 into {venv} (once)", flush=True)
        subprocess.run([python, "-m", "venv", str(venv)], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", *TORCHSERVE_PACKAGES], check=True)
        stamp.write_text(wanted)
    return venv


def write_config(scratch: Path, run_dir: Path) -> tuple[Path, int]:
    """The config.properties of either server, the same but for its free ports; returns it and the inference port."""
    inference, management, metrics, grpc_inference, grpc_management, worker = free_ports(6)
    config = run_dir / "config.properties"
    config.write_text(
        f"inference_address=http://127.0.0.1:{inference}\n"
        f"management_address=http://127.0.0.1:{management}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\n"
        f"grpc_inference_port={grpc_inference}\ngrpc_management_port={grpc_management}\n"
        f"initial_worker_port={worker}\n"
        "disable_token_authorization=true\nenable_model_api=true\ndisable_system_metrics=true\n"
        "default_workers_per_model=1\nmodel_store=" + str(scratch / "model_store") + "\n"
    )
    return config, inference


def folders(run_dir: Path) -> dict[str, str]:
    """The variables by which either server puts its temporary files and logs into ``run_dir``."""
    for folder in ("tmp", "logs"):
        (run_dir / folder).mkdir(parents=True, exist_ok=True)
    found = {name: str(run_dir / "tmp") for name in ("TMPDIR", "TEMP")}
    return found | {name: str(run_dir / "logs") for name in ("LOG_LOCATION", "METRICS_LOCATION")}


def start_drop_in(scratch: Path, command: list[str]) -> Server:
    """mlserve with the settings file, the archives and the environment that TorchServe gets."""
    run_dir = scratch / "run-drop-in"
    run_dir.mkdir(parents=True, exist_ok=True)
    config, inference = write_config(scratch, run_dir)
    command = [*command, "start", "--ts-config", str(config), "--no-snapshots"]
    command += ["--models", *(f"{model}={model}.mar" for model in MODELS)]
    return launch("mlserve", inference, command, run_dir, {**os.environ, **folders(run_dir)})


def start_torchserve(scratch: Path, venv: Path) -> Server:
    """TorchServe in the foreground of a child process, temporary files and logs under ``scratch``."""
    run_dir = scratch / "run-torchserve"
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "tmp" / ".model_server.pid").unlink(missing_ok=True)
    config, inference = write_config(scratch, run_dir)
    env = {**os.environ, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": str(venv)}
    env |= folders(run_dir)
    command = [venv / "bin" / "torchserve", "--start", "--foreground", "--ncs", "--ts-config", str(config)]
    command += ["--models", *(f"{model}={model}.mar" for model in MODELS)]
    return launch("TorchServe", inference, command, run_dir, env)


def start_mlserve(scratch: Path, command: list[str]) -> Server:
    """mlserve in a child process; ``command`` is the ``mlserve`` program."""
    run_dir = scratch / "run-mlserve"
    (run_dir / "tmp").mkdir(parents=True, exist_ok=True)
    inference, management, metrics, grpc_inference, grpc_management = free_ports(5)
    command = [*command, "start", "--model-store", str(scratch / "model_store")]
    command += ["--models", *(f"{model}={model}.mar" for model in MODELS)]
    command += ["--host", "127.0.0.1", "--inference-port", str(inference)]
    command += ["--management-port", str(management), "--metrics-port", str(metrics)]
    command += ["--grpc-inference-port", str(grpc_inference), "--grpc-management-port", str(grpc_management)]
    return launch("mlserve", inference, command, run_dir, {**os.environ, "TMPDIR": str(run_dir / "tmp")})


def launch(name: str, port: int, command: list, run_dir: Path, env: dict[str, str]) -> Server:
    """Start ``command`` in ``run_dir`` with its output in a file there."""
    log = run_dir / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=run_dir, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    return Server(name, f"http://127.0.0.1:{port}", process, log)
