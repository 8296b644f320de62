"""Ray Serve: a deployment with ``@serve.batch``, asked with plain bodies."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import APPS, Job, Payload, Site, as_is, plain
from benchmarks.peers.environment import ensure, environ
from benchmarks.servers import Server, free_ports, launch
from benchmarks.wrk import Request

NAME, TITLE, WAITS = "ray", "Ray Serve", True
PACKAGES = ["ray[serve]"]
NOTE = "@serve.batch with max_batch_size 8 and batch_wait_timeout_s 0.005, one replica, no dashboard, no access log"
answer = as_is


def install(site: Site) -> Path:
    """Its environment."""
    return ensure(site.scratch, NAME, PACKAGES, site.python)


def start(site: Site, job: Job) -> Server:
    """``apps/ray_app.py`` in its environment. Its unix sockets need a folder with a short name."""
    venv, run_dir, [port] = install(site), site.run_dir(NAME, job), free_ports(1)
    env = environ(venv, **job.environ(site.assets, port), RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0")
    env["RAY_SERVE_LOG_TO_STDERR"] = "0"
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    server = launch(TITLE, port, [venv / "bin" / "python", APPS / "ray_app.py", folder], run_dir, env)
    server.leftovers = folder
    return server


def request(site: Site, job: Job, payloads: Sequence[Payload]) -> Request:
    """The body as it is."""
    return plain("/predict", payloads)
