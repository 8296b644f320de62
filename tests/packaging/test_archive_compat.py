"""Archives go both ways: those of torch-model-archiver 0.12 load here, those made here load in a real TorchServe.

The fixtures were made by torch-model-archiver 0.12.0 from a handler function, weights, an extra directory with a
sub-directory, requirements and a model-config.yaml.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from mlserve.archive import inspect, pack, unpack, verify
from mlserve.archive.store import ModelStore
from mlserve.core.model import ModelKey

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "archives"
MADE_BY_ARCHIVER = ["archiver-0.12-default.mar", "archiver-0.12.tar.gz"]
MEMBERS = {
    "MAR-INF/MANIFEST.json",
    "hand.py",
    "index_to_name.json",
    "model-config.yaml",
    "reqs.txt",
    "sub/note.txt",
    "w.pt",
}


@pytest.mark.parametrize("name", MADE_BY_ARCHIVER)
def test_archive_of_the_archiver_loads_as_it_is(tmp_path: Path, name: str) -> None:
    store = ModelStore(FIXTURES, work_dir=tmp_path, defaults={}, model_settings={}, allowed_urls=())
    spec = asyncio.run(store.resolve(name, {}))
    assert spec.key == ModelKey("tm_default" if name.endswith(".mar") else "tm_tgz", "2.1")
    assert spec.handler == "hand:handle"
    assert (spec.batch_size, spec.max_batch_delay_ms, spec.response_timeout) == (4, 20, 30)
    assert (spec.min_workers, spec.max_workers) == (1, 2)
    assert spec.manifest["archiverVersion"] == "0.12.0"
    found = {path.relative_to(spec.model_dir).as_posix() for path in Path(spec.model_dir).rglob("*") if path.is_file()}
    assert found == MEMBERS
    store.release(spec)


@pytest.mark.parametrize("name", MADE_BY_ARCHIVER)
def test_archive_of_the_archiver_is_whole(tmp_path: Path, name: str) -> None:
    assert verify(FIXTURES / name).ok
    assert {member.name for member in inspect(FIXTURES / name).members} == MEMBERS
    assert (unpack(FIXTURES / name, tmp_path / "out") / "sub" / "note.txt").read_text() == "hi\n"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


@pytest.mark.torchserve
@pytest.mark.skipif(shutil.which("torchserve") is None, reason="needs a real TorchServe 0.12 on PATH")
def test_archive_made_here_is_served_by_torchserve(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "echo_handler.py").write_text("def handle(data, context):\n    return ['served'] * len(data or [])\n")
    (tmp_path / "extra" / "sub").mkdir(parents=True)
    (tmp_path / "extra" / "sub" / "note.txt").write_text("hi")
    for form, name in (("default", "zipped"), ("zip-store", "stored"), ("tgz", "tarred")):
        pack(
            model_name=name,
            version="1.5",
            handler=str(tmp_path / "echo_handler.py:handle"),
            extra_files=[tmp_path / "extra"],
            archive_format=form,
            export_path=tmp_path / "store",
        )
    inference, management, metrics, grpc, grpc_management = free_ports(5)
    (tmp_path / "config.properties").write_text(
        f"inference_address=http://127.0.0.1:{inference}\nmanagement_address=http://127.0.0.1:{management}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\ngrpc_inference_port={grpc}\n"
        f"grpc_management_port={grpc_management}\ndisable_token_authorization=true\ndefault_workers_per_model=1\n"
    )
    command = [
        "torchserve", "--start", "--foreground", "--ncs", "--ts-config", "config.properties", "--model-store", "store",
        "--models", "zipped=zipped.mar", "stored=stored.mar", "tarred=tarred.tar.gz",
    ]  # fmt: skip
    # Its pid file and unpacked models go to TMPDIR and TEMP; the launcher does not pass signals on to Java.
    own = {**os.environ, "TMPDIR": str(tmp_path), "TEMP": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=own, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        for name in ("zipped", "stored", "tarred"):
            assert predict(f"http://127.0.0.1:{inference}/predictions/{name}", server) == b"served", name
        with urllib.request.urlopen(f"http://127.0.0.1:{management}/models/zipped", timeout=10) as answer:
            assert json.load(answer)[0]["modelVersion"] == "1.5"
    finally:
        stop_group(server)


def stop_group(server: "subprocess.Popen[bytes]", patience: float = 30.0) -> None:
    """End the launcher, Java and its workers, which are one process group, and wait until all of them have gone."""
    until = time.monotonic() + patience
    while True:
        try:
            os.killpg(server.pid, signal.SIGTERM if time.monotonic() < until else signal.SIGKILL)
        except ProcessLookupError:
            return
        server.poll()  # a launcher that nobody waited for would count as alive
        time.sleep(0.5)


def predict(url: str, server: "subprocess.Popen[bytes]", patience: float = 90.0) -> bytes:
    """Ask until the worker has started, for at most ``patience`` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(url, data=b"x", timeout=10) as answer:
                content: bytes = answer.read()
                return content
        except OSError:
            assert server.poll() is None, "TorchServe ended"
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
