"""LitServe: FastAPI in front of worker processes, asked with JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import APPS, Job, Payload, Site, as_is, bodies, wrap
from benchmarks.peers.environment import ensure, environ
from benchmarks.servers import Server, free_ports, launch
from benchmarks.wrk import Request

NAME, TITLE, WAITS = "litserve", "LitServe", True
PACKAGES = ["litserve"]
NOTE = "max_batch_size 8, batch_timeout 5 ms, one worker, JSON requests (base64 where it is no text)"
answer = as_is


def install(site: Site) -> Path:
    """Its environment."""
    return ensure(site.scratch, NAME, PACKAGES, site.python)


def start(site: Site, job: Job) -> Server:
    """``apps/litserve_app.py`` in its environment."""
    venv, run_dir, [port] = install(site), site.run_dir(NAME, job), free_ports(1)
    command = [venv / "bin" / "python", APPS / "litserve_app.py"]
    return launch(TITLE, port, command, run_dir, environ(venv, **job.environ(site.assets, port)))


def request(site: Site, job: Job, payloads: Sequence[Payload]) -> Request:
    """The body as a field of a JSON object."""
    files = bodies(site, NAME, payloads, _wrap)
    return Request("/predict", tuple(files), "application/json", payloads[0].expect)


def _wrap(body: bytes, is_text: bool) -> bytes:
    return json.dumps(wrap(body, is_text)).encode()
