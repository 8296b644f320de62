"""TorchServe 0.12 as installed, but: no tokens, no snapshots, no system metrics every minute. Needs Java 17."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.archives import folders, pack, write_config
from benchmarks.peers.base import Job, Payload, Site, as_is, plain
from benchmarks.peers.environment import MissingPeerError, ensure, environ
from benchmarks.servers import Server, launch
from benchmarks.wrk import Request

NAME, TITLE, WAITS = "torchserve", "TorchServe", True
PACKAGES = ["torchserve==0.12.0", "torch-model-archiver==0.12.0", "torch==2.13.0"]
# What TorchServe's own modules import but its wheel does not ask for, and what the measured handlers need.
PACKAGES += ["pyyaml", "psutil", "requests", "Pillow", "packaging", "numpy", "setuptools<81"]
NOTE = "its default logging, no tokens, no snapshots, no system metrics; batchSize 8, maxBatchDelay 5"
answer = as_is


def install(site: Site) -> Path:
    """Its environment; raises MissingPeerError where there is no Java."""
    try:
        subprocess.run(["java", "-version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingPeerError("java was not found; on Debian: apt-get install -y openjdk-17-jre-headless") from error
    return ensure(site.scratch, NAME, PACKAGES, site.python)


def archive(site: Site, job: Job) -> Path:
    """The store with the job's archive, packed by TorchServe's own archiver."""
    return pack(site, job, [install(site) / "bin" / "torch-model-archiver"])


def start(site: Site, job: Job) -> Server:
    """TorchServe in the foreground of a child process."""
    venv, run_dir = install(site), site.run_dir(NAME, job)
    (run_dir / "tmp" / ".model_server.pid").unlink(missing_ok=True)
    config, ports = write_config(archive(site, job), run_dir)
    command = [venv / "bin" / "torchserve", "--start", "--foreground", "--ncs", "--ts-config", config]
    command += ["--models", f"{job.name}={job.name}.mar"]
    env = environ(venv, **folders(run_dir))
    return launch(TITLE, ports.pop("inference"), command, run_dir, env, **ports)


def request(site: Site, job: Job, payloads: Sequence[Payload]) -> Request:
    """The body as it is."""
    return plain(f"/predictions/{job.name}", payloads)
