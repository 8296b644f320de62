"""Workflows from registration to removal: their answers, their texts, and what happens when a node fails."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.drop_in import DropIn, archive

MODEL = """
import time

def handle(data, context):
    if data is None:
        return None
    rows = [bytes(row.get("body") or row.get("data")) for row in data]
    if b"raise" in rows:
        raise ValueError("no")
    if b"memory" in rows:
        raise MemoryError("no")
    if b"slow" in rows:
        time.sleep(1.5)
    return [row + b"+m" for row in rows]
"""
FUNCTIONS = """
import json

def first(data, context):
    return None if data is None else [data[0].get("body") or data[0].get("data")]

def show(data, context):
    return None if data is None else [json.dumps({key: bytes(value).decode() for key, value in data[0].items()})]

def wrap(data, context):
    return None if data is None else [{"got": bytes(data[0]["body"]).decode()}]

def headers(data, context):
    return None if data is None else [json.dumps(context.get_all_request_header(0))]
"""
CHAIN = "models:\n  a: {url: m.mar}\ndag:\n  first: [a]\n  a: [show]\n"
SPECS = {
    "chain": CHAIN,
    "fork": "models:\n  a: {url: m.mar}\n  b: {url: m.mar}\ndag:\n  first: [a, b]\n  a: [show]\n  b: [show]\n",
    "leaves": "models: {}\ndag:\n  first: [wrap, show]\n",
    "seen": "models: {}\ndag:\n  headers: []\n",
    "alone": "models:\n  max-workers: 2\n  batch-size: 4\n  a: {url: m.mar, max-batch-delay: 20}\ndag:\n  a: []\n",
    "hasty": "models:\n  a: {url: m.mar, timeout-ms: 300, retry-attempts: 0}\ndag:\n  a: []\n",
    "cycle": "models: {}\ndag:\n  first: [wrap]\n  wrap: [show]\n  show: [wrap]\n",
    "starts": "models: {}\ndag:\n  first: [show]\n  wrap: [show]\n",
    "lost": "models:\n  a: {url: nowhere.mar}\ndag:\n  a: []\n",
    "broken": "models:\n  a: {url: b.mar}\ndag:\n  a: []\n",
    "nofunction": "models: {}\ndag:\n  nosuch: []\n",
    "large": "models:\n  a: {url: large.mar}\ndag:\n  a: []\n",
    "lacks": "models:\n  a: {url: lacks.mar}\ndag:\n  a: []\n",
    "needs": "models:\n  a: {url: needs.mar}\ndag:\n  a: []\n",
}


def war(store: Path, name: str, spec: str) -> None:
    workflow = {"workflowName": name, "specFile": "spec.yaml", "handler": "functions.py"}
    with zipfile.ZipFile(store / f"{name}.war", "w") as packed:
        packed.writestr(
            "WAR-INF/MANIFEST.json", json.dumps({"createdOn": "x", "workflow": workflow, "archiverVersion": "1"})
        )
        packed.writestr("spec.yaml", spec)
        packed.writestr("functions.py", FUNCTIONS)


@pytest.fixture(scope="module")
def server(start, tmp_path_factory: pytest.TempPathFactory) -> DropIn:
    store: Path = tmp_path_factory.mktemp("store")
    archive(store, "m", MODEL)
    archive(store, "b", "raise ValueError('no')\n")
    for name, spec in SPECS.items():
        war(store, name, spec)
    (store / "junk.war").write_bytes(b"junk")
    archive(store, "large", "def handle(data, context):\n    raise MemoryError('large')\n")
    for name, needed in (("lacks", "/nowhere/none.whl"), ("needs", "")):
        archive(store, name, MODEL, model={"requirementsFile": "r.txt"}, r__txt=f"{needed}\n")
    live: DropIn = start({"workflow_store": store, "install_py_dep_per_model": "true"}, store=store)
    assert live.manage("GET", "/workflows").json() == {"workflows": []}
    for name in ("chain", "fork", "leaves", "seen", "alone", "hasty"):
        text = live.status("POST", f"/workflows?url={name}.war")
        assert text == f"Workflow {name} has been registered and scaled successfully."
    return live


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/wfpredict/chain", b'{"body": "x+m"}'),
        ("/wfpredict/chain/", b'{"body": "x+m"}'),
        ("/wfpredict/chain/more", b'{"body": "x+m"}'),
        ("/wfpredict/chain?a=b", b'{"body": "x+m"}'),
        ("/wfpredict/alone", b"x+m"),
    ],
)
def test_a_workflow_answers_with_its_last_nodes_bytes(server: DropIn, path: str, body: bytes) -> None:
    reply = server.ask("POST", path, b"x")
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, body, "application/json")
    form = server.ask("PUT", path, "data=x", {"Content-Type": "application/x-www-form-urlencoded"})
    assert (form.status, form.body) == (200, body)


def test_several_answers_come_by_the_names_of_their_nodes(server: DropIn) -> None:
    assert server.ask("POST", "/wfpredict/fork", b"x").json() == {"a": "x+m", "b": "x+m"}
    assert server.ask("POST", "/wfpredict/leaves", b"x").json() == {"wrap": {"got": "x"}, "show": {"body": "x"}}


def test_a_node_sees_the_clients_headers_but_none_of_a_route(server: DropIn) -> None:
    seen = server.ask("POST", "/wfpredict/seen", b"x", {"X-Mine": "1"}).json()
    assert seen["X-Mine"] == "1"
    assert not {"url_path", "explain"} & seen.keys()


@pytest.mark.parametrize("body", [b"raise", b"slow", b"memory"])
def test_a_node_that_fails_is_named(server: DropIn, body: bytes) -> None:
    reply = server.ask("POST", "/wfpredict/hasty", body)
    assert (reply.status, reply.error()) == (500, (500, "InternalServerException", "Error executing a"))


def test_a_node_is_tried_again(server: DropIn) -> None:
    server.ask("POST", "/wfpredict/alone", b"raise")

    def logged() -> str:
        return "".join(path.read_text(errors="replace") for path in server.directory.rglob("*log*") if path.is_file())

    until = time.monotonic() + 10  # either server writes its log behind the answer
    while "attempt 1" not in logged():
        assert time.monotonic() < until, logged()
        time.sleep(0.02)
    assert server.ask("POST", "/wfpredict/alone", b"x").body == b"x+m"


def test_a_workflow_is_described_with_its_defaults_and_graph(server: DropIn) -> None:
    assert server.manage("GET", "/workflows/alone").json() == [
        {
            "workflowName": "alone",
            "workflowUrl": "alone.war",
            "minWorkers": 1,
            "maxWorkers": 2,
            "batchSize": 4,
            "maxBatchDelay": 50,
            "workflowDag": "{a=[]}",
        }
    ]
    described = server.manage("GET", "/workflows/fork").json()[0]
    assert described["workflowDag"] == "{first=[a, b], a=[show], b=[show]}"


def test_workflows_are_listed_by_name_in_pages(server: DropIn) -> None:
    page = server.manage("GET", "/workflows?limit=2").json()
    assert page["nextPageToken"] == "2"
    assert page["workflows"] == [{"workflowName": name, "workflowUrl": f"{name}.war"} for name in ("alone", "chain")]
    assert "nextPageToken" not in server.manage("GET", "/workflows?limit=-1&next_page_token=-3").json()


def test_models_of_a_workflow_are_models_and_its_functions_are_not_listed(server: DropIn) -> None:
    names = {model["modelName"] for model in server.manage("GET", "/models").json()["models"]}
    assert {"chain__a", "fork__a", "fork__b", "alone__a"} <= names
    assert "chain__first" not in names
    node = server.manage("GET", "/models/alone__a").json()[0]
    assert (len(node["workers"]), node["batchSize"], node["maxBatchDelay"]) == (2, 4, 20)
    assert server.ask("POST", "/predictions/chain__a", b"x").body == b"x+m"


DOWNLOAD = "Failed to download archive from: "
FAILURES = "Workflow {0} has failed to register. Failures: [{1}]"
NO_START = FAILURES.format("large", "Failed to start workers for model large__a version: 1.0")
NO_PACKAGE = (
    "Workflow Node lacks__a failed to register. Details: Custom pip package installation failed for model lacks__a"
)
NOT_IN_STORE = "Workflow not found in workflow store: nowhere.war"


@pytest.mark.parametrize(
    ("method", "path", "status", "name", "message"),
    [
        ("POST", "/workflows", 400, "BadRequest", "Parameter url is required."),
        ("POST", "/workflows?url=", 404, "WorkflowNotFound", "Workflow not found at: "),
        ("POST", "/workflows?url=nowhere.war", 404, "WorkflowNotFound", NOT_IN_STORE),
        ("POST", "/workflows?url=chain.war", 409, "ConflictStatus", "Workflow chain is already registered."),
        ("POST", "/workflows?url=malformed_url,?", 404, "WorkflowNotFound", None),
        (
            "POST",
            "/workflows?url=http://127.0.0.1:1/x.war",
            400,
            "DownloadArchive",
            f"{DOWNLOAD}http://127.0.0.1:1/x.war",
        ),
        (
            "POST",
            "/workflows?url=http%3A%2F%2Flocalhost%3Aaaaa",
            400,
            "DownloadArchive",
            f"{DOWNLOAD}http://localhost:aaaa",
        ),
        ("POST", "/workflows?url=file:///InvalidUrl", 400, "DownloadArchive", f"{DOWNLOAD}file:///InvalidUrl"),
        ("POST", "/workflows?url=large.war", 500, "Workflow", NO_START),
        ("POST", "/workflows?url=lacks.war", 500, "Workflow", FAILURES.format("lacks", NO_PACKAGE)),
        ("GET", "/wfpredict/none", 404, "WorkflowNotFound", "Workflow not found: none"),
        ("POST", "/workflows?url=../x.war", 404, "WorkflowNotFound", "Relative path is not allowed in url: ../x.war"),
        ("POST", "/workflows?url=cycle.war", 400, "InvalidDAG", None),
        ("POST", "/workflows?url=starts.war", 400, "InvalidDAG", None),
        ("POST", "/workflows?url=lost.war", 500, "Workflow", None),
        ("POST", "/workflows?url=broken.war", 500, "Workflow", None),
        ("POST", "/workflows?url=nofunction.war", 500, "Workflow", None),
        ("GET", "/workflows/none", 404, "WorkflowNotFound", "Workflow not found: none"),
        ("GET", "/workflows/none/more", 404, "WorkflowNotFound", "Workflow not found: none"),
        ("DELETE", "/workflows/none", 404, "WorkflowNotFound", "Workflow not found: none"),
        ("PUT", "/workflows", 405, "MethodNotAllowed", None),
        ("PUT", "/workflows/chain", 405, "MethodNotAllowed", None),
    ],
)
def test_what_cannot_be_done_is_told_in_torchserves_words(
    server: DropIn, method: str, path: str, status: int, name: str, message: str | None
) -> None:
    reply = server.ask(method, path) if "wfpredict" in path else server.manage(method, path)
    code, kind, text = reply.error()
    assert (reply.status, code, kind) == (status, status, f"{name}Exception")
    assert message in (None, text)
    if name == "Workflow":
        workflow = path.partition("=")[2].removesuffix(".war")
        assert text.startswith(f"Workflow {workflow} has failed to register. Failures: [")
        assert f"{workflow}__" in text


def test_nothing_stays_of_a_workflow_that_did_not_start(server: DropIn) -> None:
    assert server.manage("POST", "/workflows?url=broken.war").status == 500
    assert server.manage("GET", "/workflows/broken").status == 404
    assert server.manage("GET", "/models/broken__a").status == 404


def test_a_file_that_is_no_workflow_is_refused(server: DropIn, differs: Callable[[str], None]) -> None:
    differs("invalid-workflow")
    reply = server.manage("POST", "/workflows?url=junk.war")
    assert (reply.status, reply.error()[1]) == (400, "InvalidWorkflowException")


def test_a_workflow_takes_its_models_with_it(server: DropIn) -> None:
    assert server.status("POST", "/workflows?url=chain.war&workflow_name=other").startswith("Workflow other has been")
    assert server.ask("POST", "/wfpredict/other", b"x").json() == {"body": "x+m"}
    assert server.status("DELETE", "/workflows/other") == 'Workflow "other" unregistered'
    assert server.ask("POST", "/wfpredict/other", b"x").status == 404
    assert server.manage("GET", "/models/other__a").status == 404
    assert (server.store / "chain.war").exists()


def test_a_workflow_brings_the_packages_of_its_models(server: DropIn) -> None:
    assert (
        server.status("POST", "/workflows?url=needs.war")
        == "Workflow needs has been registered and scaled successfully."
    )
    assert server.ask("POST", "/wfpredict/needs", b"x").body == b"x+m"
    server.status("DELETE", "/workflows/needs")


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_downloaded_workflow_goes_with_its_archive(server: DropIn, web: tuple[Path, str], scheme: str) -> None:
    folder, root = web
    war(folder, "far", SPECS["alone"])
    url = f"{root if scheme == 'http' else f'file:///{folder}'}/far.war"
    said = server.status("POST", f"/workflows?url={url}&workflow_name=far1")
    assert said == "Workflow far1 has been registered and scaled successfully."
    assert (server.store / "far.war").exists()
    assert server.manage("POST", f"/workflows?url={url}&workflow_name=far1").status == 500
    assert server.manage("POST", f"/workflows?url={root}/none.war").error()[2] == f"{DOWNLOAD}{root}/none.war"
    assert server.ask("POST", "/wfpredict/far1", b"x").body == b"x+m"
    assert server.status("DELETE", "/workflows/far1") == 'Workflow "far1" unregistered'
    assert not (server.store / "far.war").exists()
    assert (folder / "far.war").exists()
