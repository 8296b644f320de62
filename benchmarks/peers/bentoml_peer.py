"""BentoML: a batchable API, asked with JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import APPS, Job, Payload, Site, bodies, unwrap, wrap, wrapped
from benchmarks.peers.environment import ensure, environ
from benchmarks.servers import Server, free_ports, launch
from benchmarks.wrk import Request

NAME, TITLE, WAITS = "bentoml", "BentoML", False
PACKAGES = ["bentoml"]
NOTE = (
    "batchable API, max_batch_size 8 (its wait adapts itself: there is no delay to set), one worker, no access log, "
    "no tracking, JSON (base64 where it is no text)"
)


def install(site: Site) -> Path:
    """Its environment."""
    return ensure(site.scratch, NAME, PACKAGES, site.python)


def start(site: Site, job: Job) -> Server:
    """``apps/bentoml_app.py`` in its environment."""
    venv, run_dir, [port] = install(site), site.run_dir(NAME, job), free_ports(1)
    command = [venv / "bin" / "bentoml", "serve", "bentoml_app:Model", "--host", "127.0.0.1", "--port", port]
    env = environ(venv, **job.environ(site.assets, port), BENTOML_DO_NOT_TRACK="True", BENTOML_HOME=str(run_dir))
    return launch(TITLE, port, [*command, "--working-dir", APPS], run_dir, env)


def request(site: Site, job: Job, payloads: Sequence[Payload]) -> Request:
    """A list of one body."""
    files = bodies(site, NAME, payloads, _wrap)
    return Request("/predict", tuple(files), "application/json", wrapped(payloads[0]))


def answer(body: bytes) -> bytes:
    """The one answer."""
    return unwrap(json.loads(body)[0])


def _wrap(body: bytes, is_text: bool) -> bytes:
    return json.dumps({"bodies": [wrap(body, is_text)]}).encode()
