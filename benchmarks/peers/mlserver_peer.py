"""MLServer: a custom runtime with adaptive batching, asked by the Open Inference Protocol in JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import BATCH, DELAY_MS, LARGEST, Job, Payload, Site, bodies, unwrap, wrap, wrapped
from benchmarks.peers.environment import ensure, environ
from benchmarks.servers import Server, free_ports, launch
from benchmarks.wrk import Request

NAME, TITLE, WAITS = "mlserver", "MLServer", True
PACKAGES = ["mlserver", "uvloop<0.22"]  # a newer one makes no event loop when asked for one, and its worker fails
NOTE = "custom runtime, max_batch_size 8, max_batch_time 5 ms, one parallel worker, v2 JSON (base64 but for text)"


def install(site: Site) -> Path:
    """Its environment."""
    return ensure(site.scratch, NAME, PACKAGES, site.python)


def start(site: Site, job: Job) -> Server:
    """A folder with both settings files and the server on it."""
    venv, run_dir = install(site), site.run_dir(NAME, job)
    http, grpc, metrics = free_ports(3)
    model = {"name": job.name, "implementation": "mlserver_app.Model", "max_batch_size": BATCH}
    model |= {"max_batch_time": DELAY_MS / 1000}
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    settings |= {"parallel_workers": job.workers, "grpc_max_message_length": LARGEST, "debug": False}
    (run_dir / "model-settings.json").write_text(json.dumps(model))
    (run_dir / "settings.json").write_text(json.dumps(settings))
    env = environ(venv, **job.environ(site.assets, http))
    return launch(TITLE, http, [venv / "bin" / "mlserver", "start", run_dir], run_dir, env)


def request(site: Site, job: Job, payloads: Sequence[Payload]) -> Request:
    """A tensor of one string."""
    files = bodies(site, NAME, payloads, _wrap)
    # The answer is JSON in a string in JSON: quotes are escaped once more.
    expect = json.dumps(wrapped(payloads[0]))[1:-1]
    return Request(f"/v2/models/{job.name}/infer", tuple(files), "application/json", expect)


def answer(body: bytes) -> bytes:
    """The one string."""
    return unwrap(json.loads(json.loads(body)["outputs"][0]["data"][0]))


def _wrap(body: bytes, is_text: bool) -> bytes:
    tensor = {"name": "in", "shape": [1, 1], "datatype": "BYTES", "data": [json.dumps(wrap(body, is_text))]}
    return json.dumps({"inputs": [tensor]}).encode()
