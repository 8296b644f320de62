"""mosec: a Rust front end with Python workers, asked with plain bodies."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import APPS, LARGEST, QUEUE, TIMEOUT_S, Job, Payload, Site, as_is, plain
from benchmarks.peers.environment import ensure, environ
from benchmarks.servers import Server, free_ports, launch
from benchmarks.wrk import Request

NAME, TITLE, WAITS = "mosec", "mosec", True
PACKAGES = ["mosec"]
NOTE = f"one stage, max_batch_size 8, max_wait_time 5 ms, --capacity {QUEUE}, no compression"
answer = as_is


def install(site: Site) -> Path:
    """Its environment."""
    return ensure(site.scratch, NAME, PACKAGES, site.python)


def start(site: Site, job: Job) -> Server:
    """``apps/mosec_app.py`` in its environment."""
    venv, run_dir, [port] = install(site), site.run_dir(NAME, job), free_ports(1)
    command = [venv / "bin" / "python", APPS / "mosec_app.py", "--address", "127.0.0.1", "--port", port]
    command += ["--capacity", QUEUE, "--timeout", TIMEOUT_S * 1000, "--max-request-size", LARGEST]
    return launch(TITLE, port, command, run_dir, environ(venv, **job.environ(site.assets, port)))


def request(site: Site, job: Job, payloads: Sequence[Payload]) -> Request:
    """The body as it is."""
    return plain("/inference", payloads)
