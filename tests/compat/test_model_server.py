"""A model's life from registration to removal, all over TLS, and with no workers unless they are asked for."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.drop_in import APIS, NOOP, DropIn, archive, free_ports, make_pair

ECHO = "def handle(data, context):\n    return None if data is None else [row['data'] for row in data]\n"
NET = """
import torch

class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(2, 10))
"""
DIGIT = """
import torch
from ts.torch_handler.base_handler import BaseHandler

class Digit(BaseHandler):
    def preprocess(self, data):
        return torch.ones(len(data), 2)

    def postprocess(self, output):
        return [str(int(digit)) for digit in output.argmax(1)]

    def explain_handle(self, data_preprocess, raw_data):
        return ["explained"] * len(raw_data)
"""
MORE = "Use scale workers API to add workers for the model."
ALL = bytes(range(256))
ROUTES = {
    "/predictions/{}": "predict",
    "/predictions/{}/1.0": "predict",
    "/explanations/{}": "explain",
    "/explanations/{}/1.0": "explain",
    "/v1/models/{}:predict": "predict",
    "/v1/models/{}:explain": "explain",
    "/v2/models/{}/infer": "predict",
    "/v2/models/{}/explain": "explain",
}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PARTS = {"Content-Type": "multipart/form-data; boundary=cut"}


@pytest.fixture(scope="module")
def server(start: Callable[..., DropIn], tmp_path_factory: pytest.TempPathFactory) -> DropIn:
    certificate, key = make_pair(tmp_path_factory.mktemp("tls"))
    keystore = certificate.with_name("keystore.p12")
    made = ["openssl", "pkcs12", "-export", "-inkey", key, "-in", certificate, "-out", keystore]
    subprocess.run([*made, "-passout", "pass:changeit"], check=True)
    ports = dict(zip(APIS, free_ports(3), strict=True))
    settings: dict[str, Any] = {f"{api}_address": f"https://127.0.0.1:{port}" for api, port in ports.items()}
    settings |= {
        "keystore": keystore,
        "keystore_pass": "changeit",
        "keystore_type": "PKCS12",
        "load_models": "noop.mar",
        "async_logging": "true",
        "default_workers_per_model": 0,
        "metrics_mode": "prometheus",
        "install_py_dep_per_model": "true",
        "models": '{"noop": {"1.11": {"marName": "noop.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": 4}}}',
    }
    live = start(settings)
    live.ports.update(ports)
    live.tls = ssl.create_default_context(cafile=certificate)
    archive(live.store, "echo", ECHO)
    archive(live.store, "lacks", NOOP, model={"requirementsFile": "needs.txt"}, needs__txt="/nowhere/none.whl\n")
    for name in ("echo", "klass"):
        live.status("POST", f"/models?url={name}.mar&initial_workers=1&synchronous=true")
    return live


def parts(**fields: bytes) -> bytes:
    """A multipart body; ``data`` is a file."""
    text = b""
    for name, value in fields.items():
        file = b'; filename="all.bin"\r\nContent-Type: application/octet-stream' if name == "data" else b""
        text += b'--cut\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name.encode(), file, value)
    return text + b"--cut--\r\n"


def test_health_has_a_request_id(server: DropIn) -> None:
    reply = server.ask("GET", "/ping")
    assert (reply.json(), "x-request-id" in reply.headers) == ({"status": "Healthy"}, True)


def test_a_model_of_the_configuration_has_its_workers(server: DropIn) -> None:
    (model,) = server.manage("GET", "/models/noop").json()
    assert (model["minWorkers"], model["batchSize"], model["loadedAtStartup"]) == (1, 4, True)
    assert server.ask("POST", "/predictions/noop", "data=test", FORM).body == b"OK"


def test_a_model_without_workers_gets_them_when_it_is_scaled(server: DropIn) -> None:
    said = server.status("POST", "/models?url=noop.mar&model_name=noop_v1.0&runtime=python")
    assert said == f'Model "noop_v1.0" Version: 1.11 registered with 0 initial workers. {MORE}'
    assert server.manage("GET", "/models/noop_v1.0").json()[0]["minWorkers"] == 0
    assert server.manage("GET", "/models/noop_v1.0?customized=true").status == 503
    for path, shown in (("", ""), ("/1.11", ", version: 1.11")):
        said = server.status("PUT", f"/models/noop_v1.0{path}?min_worker=1&synchronous=true")
        assert said == f"Workers scaled to 1 for model: noop_v1.0{shown}"
    listed = server.manage("GET", "/models?limit=200&nextPageToken=X").json()["models"]
    assert {"modelName": "noop_v1.0", "modelUrl": "noop.mar"} in listed
    again = server.manage("POST", "/models?url=noop.mar&model_name=noop_v1.0&runtime=python&synchronous=false")
    assert again.error()[2] == "Model version 1.11 is already registered for model noop_v1.0"
    assert server.status("DELETE", "/models/noop_v1.0") == 'Model "noop_v1.0" unregistered'


def test_a_directory_with_a_slash_behind_it_registers_from_a_body(server: DropIn) -> None:
    body = f"{{'url':'{server.store}/unpacked/', 'model_name':'naked', 'initial_workers':'1', 'synchronous':'true'}}"
    reply = server.manage("POST", "/models", body, Content_Type="application/json")
    assert reply.json() == {"status": 'Model "naked" Version: 1.0 registered with 1 initial workers'}
    assert server.ask("POST", "/predictions/naked", "data=test", FORM).body == b"OK"
    server.status("DELETE", "/models/naked/1.0")


@pytest.mark.parametrize(
    ("path", "body"),
    [("/invocations", parts(model_name=b"klass", data=b"test")), ("/models/klass/invoke", parts(data=b"test"))],
)
def test_a_form_is_taken_on_sagemakers_routes(server: DropIn, path: str, body: bytes) -> None:
    reply = server.ask("POST", path, body, PARTS)
    assert (reply.status, reply.body) == (200, b"OK")


@pytest.mark.parametrize(
    ("body", "kind"),
    [(parts(data=ALL), PARTS), (b"data=" + "".join(f"%{byte:02X}" for byte in ALL).encode(), FORM)],
    ids=["multipart", "urlencoded"],
)
def test_every_byte_comes_back(server: DropIn, body: bytes, kind: dict[str, str]) -> None:
    reply = server.ask("POST", "/predictions/echo", body, kind)
    assert (reply.status, reply.body) == (200, ALL)


def test_a_request_of_any_route_is_in_the_latencies_of_its_model(server: DropIn) -> None:
    server.status("POST", "/models?url=klass.mar&model_name=timed&initial_workers=1&synchronous=true")
    for path in ROUTES:
        assert server.ask("POST", path.format("timed"), "data=test", FORM).body == b"OK"
    until = time.monotonic() + 10
    pattern = r'ts_inference_requests_total{model_name="timed",model_version="(\S+?)",hostname="[^"]+",} (\S+)'
    while True:
        counts = dict(re.findall(pattern, server.ask("GET", "/metrics", api="metrics").body.decode()))
        if counts == {"default": "6.0", "1.0": "2.0"}:
            break
        assert time.monotonic() < until, counts
        time.sleep(0.05)
    text = server.ask("GET", "/metrics?name[]=ts_inference_latency_microseconds", api="metrics").body.decode()
    for version in ("default", "1.0"):
        assert f'ts_inference_latency_microseconds{{model_name="timed",model_version="{version}",' in text
    assert "ts_inference_requests_total" not in text
    server.status("DELETE", "/models/timed")


@pytest.mark.parametrize(
    "url",
    [
        "http%3A%2F%2Flocalhost%3Aaaaa",
        "http%3A%2F%2Flocalhost%3A{free}%2Ffake.mar",
        "https%3A%2F%2F127.0.0.1%3A{inference}%2Ffake.mar",
        "file:///InvalidUrl",
    ],
)
def test_a_failed_download_is_told_with_its_url(server: DropIn, url: str) -> None:
    url = url.format(free=free_ports(1)[0], **server.ports)
    reply = server.manage("POST", f"/models?url={url}&synchronous=false")
    shown = url.replace("%3A", ":").replace("%2F", "/")
    assert reply.error() == (400, "DownloadArchiveException", f"Failed to download archive from: {shown}")


def test_a_file_with_a_slash_too_many_is_copied_and_goes_with_its_model(server: DropIn, tmp_path: Path) -> None:
    archive(tmp_path, "filed", NOOP)
    server.status("POST", f"/models?url=file:///{tmp_path}/filed.mar&model_name=filed1&runtime=python")
    assert (server.store / "filed.mar").exists()
    assert server.status("DELETE", "/models/filed1") == 'Model "filed1" unregistered'
    assert not (server.store / "filed.mar").exists()


def test_packages_that_cannot_be_installed_refuse_a_model_without_workers(server: DropIn) -> None:
    reply = server.manage("POST", "/models?url=lacks.mar&model_name=lacks&runtime=python")
    assert (reply.error()[0], reply.error()[2]) == (400, "Custom pip package installation failed for model lacks")


def test_workflows_are_found_in_the_model_store_unless_they_have_one_of_their_own(server: DropIn) -> None:
    workflow = {"workflowName": "flow", "specFile": "flow.yaml", "handler": "flow.py"}
    manifest = {"createdOn": "x", "workflow": workflow, "archiverVersion": "1"}
    with zipfile.ZipFile(server.store / "flow.war", "w") as packed:
        packed.writestr("WAR-INF/MANIFEST.json", json.dumps(manifest))
        packed.writestr("flow.yaml", "models: {}\ndag:\n  first: []\n")
        packed.writestr("flow.py", NOOP.replace("handle", "first"))
    said = server.status("POST", "/workflows?url=flow.war")
    assert said == "Workflow flow has been registered and scaled successfully."
    assert server.ask("POST", "/wfpredict/flow", b"x").body == b"OK"
    server.status("DELETE", "/workflows/flow")


@pytest.fixture(scope="module")
def network(server: DropIn) -> Callable[[str], str]:
    """The name of a model that says 7: ``eager`` of a class and its weights, ``scripted`` or ``traced``."""
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(2, 10)).eval()
    with torch.no_grad():
        net[0].bias[7] = 100.0

    def register(kind: str) -> str:
        if server.manage("GET", f"/models/{kind}").status == 404:
            more: dict[str, Any] = {}
            weights = server.directory / f"{kind}.pt"
            if kind == "eager":
                more = {"model": {"modelFile": "net.py"}, "net__py": NET}
                torch.save(net.state_dict(), weights)
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # archives of the kind are still about
                    made = torch.jit.script(net) if kind == "scripted" else torch.jit.trace(net, torch.ones(1, 2))
                    torch.jit.save(made, weights)
            model = {**more.pop("model", {}), "serializedFile": "net.pt"}
            archive(server.store, kind, DIGIT, model=model, net__pt=weights.read_bytes(), **more)
            said = server.status("POST", f"/models?url={kind}.mar&initial_workers=1&synchronous=true")
            assert said == f'Model "{kind}" Version: 1.0 registered with 1 initial workers'
        return kind

    return register


@pytest.mark.parametrize(("path", "call"), ROUTES.items())
@pytest.mark.parametrize("kind", ["eager", "scripted", "traced"])
def test_a_network_answers_on_every_route(
    server: DropIn, network: Callable[[str], str], kind: str, path: str, call: str
) -> None:
    reply = server.ask("POST", path.format(network(kind)), "data=test", FORM)
    assert (reply.status, reply.body) == (200, b"7" if call == "predict" else b"explained"), reply


@pytest.mark.parametrize("kind", ["eager", "scripted", "traced"])
def test_a_network_is_removed(server: DropIn, network: Callable[[str], str], kind: str) -> None:
    assert server.status("DELETE", f"/models/{network(kind)}") == f'Model "{kind}" unregistered'
    assert server.ask("POST", f"/predictions/{kind}", "data=test", FORM).status == 404
