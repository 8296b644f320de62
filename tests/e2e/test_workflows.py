"""A workflow on a real server: registered, asked, described, removed; functions and models in one graph."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.server import LiveServer, running

from mlserve.archive import pack, pack_workflow

MODEL = (
    "def handle(data, context):\n    return None if data is None else [bytes(row['body']) + b' {}' for row in data]\n"
)
FUNCTIONS = """
import time

def first(data, context):
    return None if data is None else [bytes(row["data"] if "data" in row else row["body"]).upper() for row in data]

def join(data, context):
    return None if data is None else [b" | ".join(bytes(row[name]) for name in ("cat", "dog")) for row in data]

def slow(data, context):
    if data is not None:
        time.sleep(1.0)
    return data and ["late"]
"""
SPEC = """
models:
  max-batch-delay: 1
  cat: {url: cat.mar, batch-size: 2}
  dog: {url: dog.mar}
dag:
  first: [cat, dog]
  cat: [join]
  dog: [join]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    root = tmp_path_factory.mktemp("workflows")
    (root / "functions.py").write_text(FUNCTIONS)
    for name in ("cat", "dog"):
        (root / f"{name}.py").write_text(MODEL.format(name))
        pack(model_name=name, version="1.0", handler=str(root / f"{name}.py"), export_path=root)
    for name, spec in (
        ("pets", SPEC),
        ("late", "models: {timeout-ms: 100, retry-attempts: 0}\ndag: {slow: []}\n"),
        ("lost", "models: {a: {url: nowhere.mar}}\ndag: {a: []}\n"),
    ):
        (root / f"{name}.yaml").write_text(spec)
        pack_workflow(
            workflow_name=name, spec_file=root / f"{name}.yaml", handler=root / "functions.py", export_path=root
        )
    with running(root / "server", store=root, settings={"LOG_ACCESS_LOG": "off"}) as live:
        yield live


def test_a_graph_of_functions_and_models_answers_as_one_model(server: LiveServer) -> None:
    assert server.manage("POST", "/workflows?url=pets.war") == {
        "status": "Workflow pets has been registered and scaled successfully."
    }
    names = [model["modelName"] for model in server.manage("GET", "/models")["models"]]
    assert names == ["pets__cat", "pets__dog"], "functions are no models that a user has"
    assert server.describe("pets__cat")["batchSize"] == 2
    reply = server.request("POST", "/wfpredict/pets", b"photo")
    assert (reply.status, reply.body) == (200, b"PHOTO cat | PHOTO dog")
    assert server.manage("GET", "/workflows") == {"workflows": [{"workflowName": "pets", "workflowUrl": "pets.war"}]}
    (described,) = server.manage("GET", "/workflows/pets")
    assert described["workflowDag"] == "{first=[cat, dog], cat=[join], dog=[join]}"
    again = server.request("POST", "/workflows?url=pets.war", api="management")
    assert again.error()[::2] == (409, "Workflow pets is already registered.")
    for method in ("GET", "DELETE"):
        beyond = server.request(method, "/workflows/pets/node", api="management")
        assert beyond.error()[:2] == (404, "ResourceNotFoundException"), "a longer path is taken for the workflow"
    assert server.manage("DELETE", "/workflows/pets") == {"status": 'Workflow "pets" unregistered'}
    assert server.manage("GET", "/models")["models"] == []
    assert server.request("POST", "/wfpredict/pets", b"x").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/workflows", 400, "Parameter url is required."),
        ("POST", "/workflows?url=none.war", 404, "Workflow not found in workflow store: none.war"),
        ("POST", "/workflows?url=../x.war", 404, "Relative path is not allowed in url: ../x.war"),
        ("GET", "/workflows/none", 404, "Workflow not found: none"),
        ("DELETE", "/workflows/none", 404, "Workflow not found: none"),
        ("PUT", "/workflows/none", 405, ""),
        (
            "POST",
            "/workflows?url=lost.war",
            500,
            "Workflow lost has failed to register. Failures: [Workflow Node lost__a failed to register. "
            "Details: Model not found at: nowhere.mar]",
        ),
    ],
)
def test_a_call_that_cannot_be_met_says_why(
    server: LiveServer, method: str, path: str, status: int, message: str
) -> None:
    reply = server.request(method, path, api="management")
    assert (reply.status, message in json.loads(reply.body)["message"]) == (status, True), reply


def test_a_node_that_takes_too_long_fails_the_request_in_its_time(server: LiveServer) -> None:
    server.manage("POST", "/workflows?url=late.war")
    assert server.request("POST", "/wfpredict/late", b"x").error()[::2] == (500, "Error executing slow")
    server.manage("DELETE", "/workflows/late")
