"""A plain FastAPI application with a thread pool, as people write it by hand."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import APPS, Job, Payload, Site, as_is, plain
from benchmarks.peers.environment import ensure, environ
from benchmarks.servers import Server, free_ports, launch
from benchmarks.wrk import Request

NAME, TITLE, WAITS = "fastapi", "FastAPI", False
PACKAGES = ["fastapi", "uvicorn[standard]"]
NOTE = "uvicorn with uvloop and httptools, one process, a pool of one thread per core, no batches"
answer = as_is


def install(site: Site) -> Path:
    """Its environment."""
    return ensure(site.scratch, NAME, PACKAGES, site.python)


def start(site: Site, job: Job) -> Server:
    """``apps/fastapi_app.py`` in its environment."""
    venv, run_dir, [port] = install(site), site.run_dir(NAME, job), free_ports(1)
    command = [venv / "bin" / "python", APPS / "fastapi_app.py"]
    return launch(TITLE, port, command, run_dir, environ(venv, **job.environ(site.assets, port)))


def request(site: Site, job: Job, payloads: Sequence[Payload]) -> Request:
    """The body as it is."""
    return plain("/predict", payloads)
