"""mlserve as it is installed, from an archive with the same settings as every peer's."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import torchserve_peer
from benchmarks.peers.archives import folders, pack, write_config
from benchmarks.peers.base import ROOT, Job, Payload, Site, as_is, plain
from benchmarks.peers.environment import ensure, environ
from benchmarks.servers import Server, free_ports, launch
from benchmarks.wrk import Request

NAME, TITLE, WAITS = "mlserve", "mlserve", False
PACKAGES = ["--editable", str(ROOT)]
NOTE = "request ids, metrics, access log, HTTP and gRPC; batchSize 8, maxBatchDelay 5, MiniLM: batchPolicy bucket"
PADDED = ("embed",)  # works whose handler pads a batch to its longest request
answer = as_is


def install(site: Site) -> Path:
    """An environment with this checkout, installed editable."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return ensure(site.scratch, NAME, PACKAGES, site.python, also=project)


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
    policy = "batchPolicy: bucket\n" if job.name in PADDED else ""
    store = pack(site, job, [venv / "bin" / "mlserve", "archive"], policy)
    inference, management, metrics, grpc, grpc_management = free_ports(5)
    command += ["--model-store", store, "--host", "127.0.0.1", "--inference-port", inference]
    command += ["--management-port", management, "--metrics-port", metrics]
    command += ["--grpc-inference-port", grpc, "--grpc-management-port", grpc_management]
    return launch(title, inference, command, run_dir, environment, management=management, grpc=grpc)


def request(site: Site, job: Job, payloads: Sequence[Payload]) -> Request:
    """The body as it is, on TorchServe's route."""
    return plain(f"/predictions/{job.name}", payloads)
