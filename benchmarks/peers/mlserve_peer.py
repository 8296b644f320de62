"""mlserve as it is installed, from an archive with the same settings as every peer's.

With ``MLSERVE_COMPILE=1`` it is the compiled build (setup.py), and the note in the report says so.
"""

import hashlib
import os
import shutil
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
COMPILED = os.environ.get("MLSERVE_COMPILE") == "1"
SOURCES = ("mlserve", "handlers", "templates", "setup.py", "pyproject.toml", "README.md", "LICENSE")
NOTE = f"{'compiled' if COMPILED else 'pure Python'}; request ids, metrics, access log, HTTP and gRPC; "
NOTE += "batchSize 8, maxBatchDelay 5, MiniLM: batchPolicy bucket"
PADDED = ("embed",)  # works whose handler pads a batch to its longest request
answer = as_is


def install(site: Site) -> Path:
    """An environment with this checkout, installed editable; the compiled build is made anew when a source changes."""
    if COMPILED:
        copy = site.scratch / "mlserve-sources"  # a build in the checkout would leave folders there
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(parents=True)
        for name in SOURCES:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        digest = hashlib.sha256()
        for path in sorted(copy.rglob("*.py")):
            digest.update(path.read_bytes())
        return ensure(
            site.scratch, "mlserve-compiled", ["--force-reinstall", str(copy)], site.python, also=digest.hexdigest()
        )
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return ensure(site.scratch, NAME, PACKAGES, site.python, also=project)


def start(site: Site, job: Job) -> Server:
    """The job's archive on free ports; with ``job.drop_in`` the settings file and archive that TorchServe gets."""
    venv, run_dir = install(site), site.run_dir(NAME, job)
    environment = {key: value for key, value in environ(venv).items() if not key.startswith("MLSERVE_")}
    command = [venv / "bin" / "mlserve", "start", "--models", f"{job.name}={job.name}.mar"]
    if job.drop_in:
        config, ports = write_config(torchserve_peer.archive(site, job), run_dir)
        command += ["--ts-config", config, "--no-snapshots"]
        return launch(TITLE, ports.pop("inference"), command, run_dir, environment | folders(run_dir), **ports)
    policy = "batchPolicy: bucket\n" if job.name in PADDED else ""
    store = pack(site, job, [venv / "bin" / "mlserve", "archive"], policy)
    inference, management, metrics, grpc, grpc_management = free_ports(5)
    command += ["--model-store", store, "--host", "127.0.0.1", "--inference-port", inference]
    command += ["--management-port", management, "--metrics-port", metrics]
    command += ["--grpc-inference-port", grpc, "--grpc-management-port", grpc_management]
    return launch(TITLE, inference, command, run_dir, environment, management=management, grpc=grpc)


def request(site: Site, job: Job, payloads: Sequence[Payload]) -> Request:
    """The body as it is, on TorchServe's route."""
    return plain(f"/predictions/{job.name}", payloads)
