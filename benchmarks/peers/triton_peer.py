"""NVIDIA Triton with its Python backend, on the CPU: the real server, from inside the wheel of nvidia-pytriton.

The backend runs the model in a stub that is built for one Python; that of the running one is copied beside the backend.
The stub links libpython, and its packages are found by PYTHONPATH, as it runs outside of any environment.
"""

import json
import platform
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import APPS, BATCH, DELAY_MS, Job, Payload, Site, bodies
from benchmarks.peers.environment import MissingPeerError, ensure, environ, site_packages
from benchmarks.servers import Server, free_ports, launch
from benchmarks.wrk import Request

NAME, TITLE, WAITS = "triton", "Triton", True
PACKAGES = ["nvidia-pytriton==0.7.0"]
NOTE = "Python backend, max_batch_size 8, preferred_batch_size 8, max_queue_delay 5 ms, v2 with binary tensors"
HEADER = 512  # bytes of JSON before the body, filled with blanks, so that every request has the same headers
CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: {batch}
input [{{ name: "IN", data_type: TYPE_STRING, dims: [1] }}]
output [{{ name: "OUT", data_type: TYPE_STRING, dims: [1] }}]
instance_group [{{ kind: KIND_CPU, count: {workers} }}]
dynamic_batching {{ preferred_batch_size: [{batch}], max_queue_delay_microseconds: {delay} }}
"""


def install(site: Site) -> Path:
    """Its environment, with the stub in place; raises MissingPeerError for a Python that the wheel has no stub for."""
    venv = ensure(site.scratch, NAME, PACKAGES, site.python)
    server, version = root(venv), ".".join(platform.python_version_tuple()[:2])
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise MissingPeerError(f"nvidia-pytriton has no stub for Python {version}")
    target = server / "backends" / "python" / stub.name
    if not target.exists():
        shutil.copy2(stub, target)
    return venv


def root(venv: Path) -> Path:
    """Where the wheel keeps the server."""
    return site_packages(venv) / "pytriton" / "tritonserver"


def start(site: Site, job: Job) -> Server:
    """A model repository with the job, and the server on it. No metrics of GPUs, loopback only."""
    venv, run_dir = install(site), site.run_dir(NAME, job)
    model = run_dir / "repository" / job.name
    (model / "1").mkdir(parents=True, exist_ok=True)
    config = CONFIG.format(name=job.name, batch=BATCH, workers=job.workers, delay=DELAY_MS * 1000)
    (model / "config.pbtxt").write_text(config)
    shutil.copy2(APPS / "triton_model.py", model / "1" / "model.py")
    shutil.copy2(APPS / "job.py", model / "1" / "job.py")
    http, grpc, metrics = free_ports(3)
    server, packages = root(venv), site_packages(venv)
    command = [server / "bin" / "tritonserver", "--model-repository", model.parent]
    command += ["--backend-directory", server / "backends", "--http-port", http, "--grpc-port", grpc]
    command += ["--metrics-port", metrics, "--allow-gpu-metrics", "false"]
    command += [f"--{door}-address=127.0.0.1" for door in ("http", "grpc", "metrics")]
    env = environ(venv, **job.environ(site.assets, http))
    env["PYTHONPATH"] = ":".join(map(str, (APPS, packages, site_packages(site.scratch / "compute"))))
    env["LD_LIBRARY_PATH"] = f"{packages / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"
    return launch(TITLE, http, command, run_dir, env, grpc=grpc)


def request(site: Site, job: Job, payloads: Sequence[Payload]) -> Request:
    """A v2 request: the JSON head, then the body as the binary tensor IN; OUT is asked for as binary, too."""
    files = bodies(site, NAME, payloads, _wrap)
    header = (("Inference-Header-Content-Length", str(HEADER)),)
    path = f"/v2/models/{job.name}/infer"
    return Request(path, tuple(files), "application/octet-stream", payloads[0].expect, header)


def answer(body: bytes) -> bytes:
    """What follows the JSON head and the length of the one string."""
    end = json.JSONDecoder().raw_decode(body.decode("latin-1"))[1]
    return body[end + 4 :]


def _wrap(body: bytes, is_text: bool) -> bytes:
    size = {"binary_data_size": len(body) + 4}
    head = {
        "inputs": [{"name": "IN", "shape": [1, 1], "datatype": "BYTES", "parameters": size}],
        "outputs": [{"name": "OUT", "parameters": {"binary_data": True}}],
    }
    return json.dumps(head).encode().ljust(HEADER) + len(body).to_bytes(4, "little") + body
