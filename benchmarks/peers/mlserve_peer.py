"""mlserve as people install it, compiled (build_backend.py), from an archive with the same settings as every peer's."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from benchmarks.peers import torchserve_peer
from benchmarks.peers.archives import folders, pack, write_config
from benchmarks.peers.base import ROOT, Job, Payload, Site, as_is, plain
from benchmarks.peers.environment import ensure, environ
from benchmarks.servers import Server, free_ports, launch
from benchmarks.wrk import Request

NAME, TITLE, WAITS = "mlserve", "mlserve", False
PACKAGES = [str(ROOT)]
SOURCES = ("mlserve", "handlers", "templates", "setup.py", "build_backend.py", "pyproject.toml")
NOTE = (
    "compiled; request ids, metrics, access log, HTTP, gRPC; batchSize 8, maxBatchDelay 5; EfficientNet and MiniLM: a "
    "handler thread per core, policy adaptive and bucket"
)
THREADS = f"handlerThreads: {len(os.sched_getaffinity(0))}\n"
# MiniLM's handler pads a batch to its longest request. silero-vad keeps its state in the model: one batch at a time.
CONFIG = {"classify": f"batchPolicy: adaptive\n{THREADS}", "embed": f"batchPolicy: bucket\n{THREADS}"}
answer = as_is


def install(site: Site) -> Path:
    """An environment with this checkout's compiled build; without a C compiler that fails, and is reported."""
    return install_build(site, NAME, compiled=True)


def install_build(site: Site, name: str, *, compiled: bool) -> Path:
    """The environment ``name`` with one of the builds, made anew when a source has changed."""
    digest = hashlib.sha256()
    for path in sorted(path for source in SOURCES for path in [ROOT / source, *(ROOT / source).rglob("*")]):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    with mock.patch.dict(os.environ, MLSERVE_COMPILE=str(int(compiled))):
        return ensure(site.scratch, name, PACKAGES, site.python, also=digest.hexdigest())


def start(site: Site, job: Job) -> Server:
    """The job's archive on free ports; with ``job.drop_in`` the settings file and archive that TorchServe gets."""
    return start_from(install(site), site, job, NAME, TITLE)


def start_from(venv: Path, site: Site, job: Job, name: str, title: str) -> Server:
    """The server of an environment, called ``title``, in a folder of its own."""
    run_dir = site.run_dir(name, job)
    environment = {key: value for key, value in environ(venv).items() if not key.startswith("MLSERVE_")}
    command = [venv / "bin" / "mlserve", "start", "--models", f"{job.name}={job.name}.mar"]
    if job.drop_in:
        config, ports = write_config(torchserve_peer.archive(site, job), run_dir)
        command += ["--ts-config", config, "--no-snapshots"]
        return launch(title, ports.pop("inference"), command, run_dir, environment | folders(run_dir), **ports)
    store = pack(site, job, [venv / "bin" / "mlserve", "archive"], CONFIG.get(job.name, ""))
    inference, management, metrics, grpc, grpc_management = free_ports(5)
    command += ["--model-store", store, "--host", "127.0.0.1", "--inference-port", inference]
    command += ["--management-port", management, "--metrics-port", metrics]
    command += ["--grpc-inference-port", grpc, "--grpc-management-port", grpc_management]
    return launch(title, inference, command, run_dir, environment, management=management, grpc=grpc)


def request(site: Site, job: Job, payloads: Sequence[Payload]) -> Request:
    """The body as it is, on TorchServe's route."""
    return plain(f"/predictions/{job.name}", payloads)
