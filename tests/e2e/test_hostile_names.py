"""Names that a client chooses become keys, routes, labels, log lines and paths: the bad ones end at every door."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from support.drop_in import NOOP, OURS, DropIn, archive, drop_in
from support.grpc_client import TIMEOUT, refusal

from mlserve.rpc.generated import inference_pb2, inference_pb2_grpc, management_pb2, management_pb2_grpc

NAMES = [
    "../up", "..", ".", "/etc/passwd", "a/b", "a\\b", "C:x", "nul\0", "new\nline", "re\rturn", "a b", " ", "-flag",
    ".hidden", "${jndi:ldap://127.0.0.1/x}", '"quoted"', "m" * 256, "\u202etxt", "\uff0e\uff0e", "<b>", "a;b",
    "wf__\x1b[31m",
]  # fmt: skip


AS_VERSIONS = {"C:x", "a b", "-flag", ".hidden", '"quoted"', "\uff0e\uff0e", "<b>", "a;b"}
"""Those that are good enough for a version, which is free text without what ends a path or a line."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DropIn]:
    directory = tmp_path_factory.mktemp("server")
    store = directory / "store"
    store.mkdir()
    archive(store, "good", NOOP)
    for number, name in enumerate(NAMES):
        archive(store, f"v{number}", NOOP, version=name)
    with zipfile.ZipFile(store / "w.war", "w") as packed:
        workflow = {"workflowName": "w", "specFile": "spec.yaml", "handler": "f.py"}
        packed.writestr("WAR-INF/MANIFEST.json", json.dumps({"workflow": workflow}))
        packed.writestr("spec.yaml", "models: {}\ndag:\n  handle: []\n")
        packed.writestr("f.py", NOOP)
    settings = {
        "disable_token_authorization": "true",
        "enable_model_api": "true",
        "load_models": "good.mar",
        "workflow_store": store,
    }
    with drop_in(OURS, directory, store, settings) as server:
        before = files(directory)
        yield server
        assert files(directory) - before == set(), "a refused name has left a file"


def files(directory: Path) -> set[str]:
    """All but those that a server that works writes: logs, and what Python keeps of modules that it imported."""
    passed = {"logs", "__pycache__"}
    return {str(path) for path in directory.rglob("*") if not passed & set(path.parts) and path.is_file()}


def test_the_doors_take_a_good_name(live: DropIn) -> None:
    """Else the others would be refused for another reason."""
    assert live.manage("POST", "/models?url=good.mar&initial_workers=0&model_name=fine").status == 200
    assert live.manage("POST", "/workflows?url=w.war&workflow_name=flow").status == 200
    assert live.ask("POST", "/wfpredict/flow", b"x").status == 200
    assert live.manage("DELETE", "/workflows/flow").status == live.manage("DELETE", "/models/fine").status == 200


@pytest.mark.parametrize("name", NAMES)
def test_no_door_takes_the_name(live: DropIn, name: str) -> None:
    known = live.manage("GET", "/models").body
    word, body = quote(name, safe=""), json.dumps({"url": "good.mar", "model_name": name})
    version = f"v{NAMES.index(name)}.mar"
    calls = [
        live.manage("POST", f"/models?url=good.mar&initial_workers=0&model_name={word}"),
        live.manage("POST", "/models", body, content_type="application/json"),
        live.manage("POST", f"/models?url={word}"),
        live.manage("POST", f"/workflows?url=w.war&workflow_name={word}"),
        live.manage("POST", f"/workflows?url={word}"),
        live.manage("PUT", f"/models/{word}?min_worker=1"),
        live.manage("PUT", f"/models/good/{word}/set-default"),
        live.manage("DELETE", f"/models/{word}/1.0"),
        live.manage("DELETE", f"/workflows/{word}"),
        live.manage("GET", f"/workflows/{word}"),
        live.ask("POST", f"/predictions/{word}", b"x"),
        live.ask("POST", f"/predictions/good/{word}", b"x"),
        live.ask("POST", f"/wfpredict/{word}", b"x"),
    ]
    if name not in AS_VERSIONS:
        calls.append(live.manage("POST", f"/models?url={version}&initial_workers=0"))
    assert {at: call for at, call in enumerate(calls) if not 400 <= call.status < 500} == {}
    assert live.manage("GET", "/models").body == known
    assert live.manage("GET", "/workflows").json() == {"workflows": []}


@pytest.mark.parametrize("name", [name for name in NAMES if name.isprintable() or "\n" in name])
def test_grpc_does_not_take_the_name(live: DropIn, name: str) -> None:
    targets = [f"127.0.0.1:{live.ports[f'grpc_{api}']}" for api in ("inference", "management")]
    with grpc.insecure_channel(targets[0]) as first, grpc.insecure_channel(targets[1]) as second:
        infer = inference_pb2_grpc.InferenceAPIsServiceStub(first)
        manage = management_pb2_grpc.ManagementAPIsServiceStub(second)
        register = management_pb2.RegisterModelRequest(url="good.mar", model_name=name)
        assert refusal(lambda: manage.RegisterModel(register, timeout=TIMEOUT))[0] == "INVALID_ARGUMENT"
        for named in ({"model_name": name}, {"model_name": "good", "model_version": name}):
            predict = inference_pb2.PredictionsRequest(**named, input={"data": b"x"})
            assert refusal(lambda predict=predict: infer.Predictions(predict, timeout=TIMEOUT))[0] == "INTERNAL"
            describe = management_pb2.DescribeModelRequest(**named)
            assert refusal(lambda describe=describe: manage.DescribeModel(describe, timeout=TIMEOUT))[0] == "NOT_FOUND"


def test_a_name_cannot_forge_a_line_of_the_log(live: DropIn) -> None:
    forged = quote("good\n2026-01-01T00:00:00,000 [INFO ] main forged")
    for path in (f"/models?url=good.mar&model_name={forged}", f"/models?url={forged}", f"/workflows?url={forged}"):
        assert 400 <= live.manage("POST", path).status < 500
    live.ask("POST", f"/predictions/{forged}", b"x")
    logs = [live.log, *(live.directory / "logs").glob("*.log")]
    assert not [line for log in logs for line in log.read_text(errors="replace").splitlines() if line[:4] == "2026"
                and " main forged" in line[24:45]]  # fmt: skip
