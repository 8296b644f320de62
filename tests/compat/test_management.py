"""The management API: what each call says, in which order, and with which errors, as TorchServe's scripts know them."""

from __future__ import annotations

import functools
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.drop_in import NOOP, DropIn, archive, free_ports

MORE = "Use scale workers API to add workers for the model."
NOT_FOUND = "Requested resource is not found, please refer to API document."
NOT_ALLOWED = "Requested method is not allowed, please refer to API document."
PROCESSING = "Processing worker updates..."
NO_VERSION = "Model version: 9 does not exist for model: {}"
FAILED = "Failed to start workers for model {} version: 1.0"
UNMATCHED = "does not match any allowed URL(s)"
LESS = "max_worker cannot be less than min_worker."
BROKEN = "def handle(data, context):\n    raise ValueError('broken')\n"
LARGE = "def handle(data, context):\n    raise MemoryError('large')\n"
DESCRIBING = """
class Handler:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        if context.get_request_header(0, "describe") == "True":
            return [{"data1": "1", "data2": "2"}]
        return ["OK"] * len(data)
"""
KEYS = [
    "modelName", "modelVersion", "modelUrl", "runtime", "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay",
    "responseTimeout", "startupTimeout", "maxRetryTimeoutInSec", "clientTimeoutInMills", "parallelType",
    "parallelLevel", "deviceType", "continuousBatching", "useJobTicket", "useVenv", "stateful",
    "sequenceMaxIdleMSec", "sequenceTimeoutMSec", "maxNumSequence", "maxSequenceJobQueueSize", "loadedAtStartup",
    "workers", "jobQueueStatus",
]  # fmt: skip


@pytest.fixture(scope="module")
def server(start) -> DropIn:
    allowed = "file://.*,http://127\\\\.0\\\\.0\\\\.1.*"
    live = start({"default_service_handler": "nomanifest_handler:handle", "allowed_urls": allowed})
    for name, source in (("broken", BROKEN), ("large", LARGE), ("describing", DESCRIBING)):
        archive(live.store, name, source)
    archive(live.store, "versionless", NOOP, model={"modelVersion": None})
    return live


@pytest.fixture
def register(server: DropIn) -> Iterator[Callable[..., Any]]:
    """Register ``noop.mar`` under a name that no other case has; all of them are gone afterwards."""
    made: list[str] = []

    def one(name: str, url: str = "noop.mar", workers: int = 0) -> None:
        reply = server.manage("POST", f"/models?url={url}&model_name={name}&initial_workers={workers}")
        assert reply.status == 200, reply
        made.append(name)

    yield one
    for name in dict.fromkeys(reversed(made)):
        shown = server.manage("GET", f"/models/{name}/all")
        versions = [model["modelVersion"] for model in shown.json()] if shown.status == 200 else []
        for version in [*versions, *versions]:
            server.manage("DELETE", f"/models/{name}/{version}")


def describe(server: DropIn, name: str, version: str = "") -> list[dict[str, Any]]:
    reply = server.manage("GET", f"/models/{name}/{version}".rstrip("/"))
    assert reply.status == 200, reply
    return reply.json()


def wait_workers(server: DropIn, name: str, count: int) -> None:
    until = time.monotonic() + 30
    while [one["status"] for one in describe(server, name)[0]["workers"]] != ["READY"] * count:
        assert time.monotonic() < until, describe(server, name)
        time.sleep(0.05)


def registered(name: str, version: str, workers: int) -> str:
    return f'Model "{name}" Version: {version} registered with {workers} initial workers' + (
        "" if workers else f". {MORE}"
    )


@pytest.mark.parametrize(
    ("query", "name", "version", "workers"),
    [
        ("url=noop.mar&initial_workers=0", "noop", "1.11", 0),
        ("url=noop.mar&model_name=asked&initial_workers=1", "asked", "1.11", 1),
        ("url=noop.mar&model_name=pair&initial_workers=2&synchronous=true", "pair", "1.11", 2),
        ("url=noop.mar&model_name=usual", "usual", "1.11", 1),
        ("url=noop.mar&model_name=junk&initial_workers=many&batch_size=x", "junk", "1.11", 1),
        ("url=noop.mar&model_name=minus&initial_workers=-1", "minus", "1.11", 0),
        ("url=unpacked&initial_workers=1", "unpacked", "1.0", 1),
        ("url=versionless.mar&initial_workers=0", "versionless", "1.0", 0),
        ("url=nomanifest.mar&model_name=nm&handler=nomanifest_handler:handle&initial_workers=1", "nm", "1.0", 1),
        ("url=nomanifest.mar&model_name=nm2&initial_workers=1", "nm2", "1.0", 1),
        ("url=entry.mar&model_name=over&handler=svc:answer&initial_workers=1", "over", "1.0", 1),
    ],
)
def test_a_model_registers(server: DropIn, query: str, name: str, version: str, workers: int) -> None:
    reply = server.manage("POST", f"/models?{query}")
    assert (reply.status, reply.json()) == (200, {"status": registered(name, version, workers)})
    if workers:
        assert server.ask("POST", f"/predictions/{name}", b"x").body == b"OK"
    (model,) = describe(server, name)
    assert (model["modelVersion"], model["minWorkers"], len(model["workers"])) == (version, workers, workers)
    assert server.status("DELETE", f"/models/{name}") == f'Model "{name}" unregistered'


@pytest.mark.parametrize(
    ("body", "workers"),
    [
        ('{"url": "noop.mar", "model_name": "body", "batch_size": 3, "max_batch_delay": 7, "initial_workers": 1}', 1),
        ("{'url':'noop.mar','model_name':'body','batch_size':'3','max_batch_delay':'7','initial_workers':'0'}", 0),
    ],
)
def test_a_json_body_registers_as_the_query_does(server: DropIn, body: str, workers: int) -> None:
    reply = server.manage("POST", "/models", body, Content_Type="application/json")
    assert (reply.status, reply.json()) == (200, {"status": registered("body", "1.11", workers)})
    (model,) = describe(server, "body")
    assert (model["batchSize"], model["maxBatchDelay"]) == (3, 7)
    assert server.status("DELETE", "/models/body") == 'Model "body" unregistered'


def test_a_json_body_without_a_delay_gets_the_default(server: DropIn, differs: Callable[[str], None]) -> None:
    differs("json-batch-delay")
    body = '{"url": "noop.mar", "model_name": "delay", "initial_workers": 0}'
    assert server.manage("POST", "/models", body, Content_Type="application/json").status == 200
    assert describe(server, "delay")[0]["maxBatchDelay"] == 100
    server.status("DELETE", "/models/delay")


@pytest.mark.parametrize(
    ("query", "status", "name", "message"),
    [
        ("", 400, "BadRequest", "Parameter url is required."),
        ("model_name=x", 400, "BadRequest", "Parameter url is required."),
        ("url=", 404, "ModelNotFound", "empty url"),
        ("url=../noop.mar", 404, "ModelNotFound", "Relative path is not allowed in url: ../noop.mar"),
        ("url=none.mar", 404, "ModelNotFound", "Model not found at: none.mar"),
        ("url=noop.mar&runtime=python4", 400, "BadRequest", "Invalid RuntimeType value: python4"),
        ("url=http://localhost/x.mar", 404, "ModelNotFound", "Given URL http://localhost/x.mar " + UNMATCHED),
        ("url=broken.mar&initial_workers=1", 500, "InternalServer", FAILED.format("broken")),
        ("url=large.mar&initial_workers=1", 507, "InternalServer", FAILED.format("large")),
    ],
)  # fmt: skip
def test_a_model_that_cannot_register_is_refused_in_torchserves_words(
    server: DropIn, query: str, status: int, name: str, message: str
) -> None:
    reply = server.manage("POST", f"/models?{query}")
    assert (reply.status, reply.error()) == (status, (status, f"{name}Exception", message))


def test_a_body_that_is_no_json_is_refused(server: DropIn) -> None:
    reply = server.manage("POST", "/models", '{"url": ', Content_Type="application/json")
    assert (reply.status, reply.error()[:2]) == (500, (500, "JsonSyntaxException"))


def test_a_version_registers_once(server: DropIn, register: Callable[..., None]) -> None:
    register("twice")
    reply = server.manage("POST", "/models?url=noop.mar&model_name=twice")
    message = "Model version 1.11 is already registered for model twice"
    assert (reply.status, reply.error()) == (409, (409, "ConflictStatusException", message))


def test_an_asynchronous_register_answers_at_once(server: DropIn, register: Callable[..., None]) -> None:
    reply = server.manage("POST", "/models?url=noop.mar&model_name=later&initial_workers=1&synchronous=false")
    assert (reply.status, reply.json()) == (202, {"status": PROCESSING})
    wait_workers(server, "later", 1)
    server.status("DELETE", "/models/later")


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_download_goes_with_its_model(server: DropIn, web: tuple[Path, str], scheme: str) -> None:
    folder, root = web
    archive(folder, "far", NOOP)
    url = f"{root if scheme == 'http' else f'file://{folder}'}/far.mar"
    assert server.status("POST", f"/models?url={url}&initial_workers=1") == registered("far", "1.0", 1)
    assert describe(server, "far")[0]["modelUrl"] == url
    reply = server.manage("POST", f"/models?url={url}&model_name=again")
    assert (reply.status, reply.error()[2]) == (500, "Model file already exists far.mar")
    server.status("DELETE", "/models/far")
    assert not (server.store / "far.mar").exists()
    assert (folder / "far.mar").exists()


def test_a_failed_download_is_told_with_its_url(server: DropIn, web: tuple[Path, str]) -> None:
    for url in (f"{web[1]}/none.mar", f"http://127.0.0.1:{free_ports(1)[0]}/x.mar", "file:///nowhere/none.mar"):
        reply = server.manage("POST", f"/models?url={url}")
        message = f"Failed to download archive from: {url}"
        assert (reply.status, reply.error()) == (400, (400, "DownloadArchiveException", message))


def test_a_file_that_is_no_archive_is_refused(server: DropIn, differs: Callable[[str], None]) -> None:
    differs("junk-archive")
    (server.store / "junk.mar").write_bytes(b"no archive")
    assert server.manage("POST", "/models?url=junk.mar&initial_workers=0").status == 400


def test_a_directory_that_is_removed_from_the_api_stays_on_disk(server: DropIn, tmp_path: Path) -> None:
    directory = tmp_path / "elsewhere"
    shutil.copytree(server.store / "unpacked", directory)
    said = server.status("POST", f"/models?url={directory}&model_name=absolute&initial_workers=1")
    assert said == registered("absolute", "1.0", 1)
    assert server.ask("POST", "/predictions/absolute", b"x").body == b"OK"
    server.status("DELETE", "/models/absolute")
    assert (directory / "h.py").exists()


def test_a_description_has_torchserves_keys_and_defaults(server: DropIn, register: Callable[..., None]) -> None:
    register("shown", workers=1)
    (model,) = describe(server, "shown")
    assert list(model)[: len(KEYS)] == KEYS  # more may follow
    model = {key: model[key] for key in KEYS}
    (worker,) = model.pop("workers")
    assert model == {
        "modelName": "shown", "modelVersion": "1.11", "modelUrl": "noop.mar", "runtime": "python", "minWorkers": 1,
        "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 100, "responseTimeout": 120, "startupTimeout": 120,
        "maxRetryTimeoutInSec": 300, "clientTimeoutInMills": 0, "parallelType": "", "parallelLevel": 0,
        "deviceType": "cpu", "continuousBatching": False, "useJobTicket": False, "useVenv": False, "stateful": False,
        "sequenceMaxIdleMSec": 0, "sequenceTimeoutMSec": 0, "maxNumSequence": 0, "maxSequenceJobQueueSize": 0,
        "loadedAtStartup": False, "jobQueueStatus": {"remainingCapacity": 100, "pendingRequests": 0},
    }  # fmt: skip
    assert list(worker)[:7] == ["id", "startTime", "status", "memoryUsage", "pid", "gpu", "gpuUsage"]
    assert int(worker["id"]) >= 9000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", worker["startTime"])
    assert (worker["status"], worker["gpu"], worker["gpuUsage"]) == ("READY", False, "N/A")
    assert worker["pid"] > 0


def test_versions_are_described_alone_or_together(server: DropIn, register: Callable[..., None]) -> None:
    register("many")
    register("many", "noopv2.mar")
    versions = {path: [one["modelVersion"] for one in describe(server, "many", path)] for path in ("", "all", "1.2.1")}
    assert versions == {"": ["1.11"], "all": versions["all"], "1.2.1": ["1.2.1"]}
    assert sorted(versions["all"]) == ["1.11", "1.2.1"]


def test_a_customized_description_carries_what_the_handler_says(server: DropIn, register: Callable[..., None]) -> None:
    register("custom", "describing.mar")
    reply = server.manage("GET", "/models/custom?customized=true")
    message = 'Model "custom" has no worker to serve describe request. Please use scale workers API to add workers.'
    assert (reply.status, reply.error()) == (503, (503, "ServiceUnavailableException", message))
    server.status("PUT", "/models/custom?min_worker=1&synchronous=true")
    (model,) = server.manage("GET", "/models/custom/1.0?customized=true").json()
    assert list(model)[: len(KEYS)] == KEYS
    metadata = model["customizedMetadata"]
    assert (json.loads(metadata) if isinstance(metadata, str) else metadata) == {"data1": "1", "data2": "2"}


def test_the_list_comes_in_pages(server: DropIn, register: Callable[..., None]) -> None:
    server.manage("DELETE", "/models/large")  # "failed-register-stays" in the table of differences
    for name in ("page2", "page1", "page0"):
        register(name)
    models = [{"modelName": f"page{index}", "modelUrl": "noop.mar"} for index in range(3)]
    for query in (
        "",
        "?limit=-1",
        "?limit=junk",
        "?limit=100",
        "?next_page_token=-1",
        "?limit=-1&next_page_token=junk",
    ):
        assert server.manage("GET", f"/models{query}").json() == {"models": models}, query
    pages = {
        "?limit=2": {"nextPageToken": "2", "models": models[:2]},
        "?limit=2&next_page_token=2": {"models": models[2:]},
        "?limit=3": {"nextPageToken": "3", "models": models},
        "?limit=1&next_page_token=2": {"nextPageToken": "3", "models": models[2:]},
        "?next_page_token=12": {"models": []},
        "?limit=0": {"nextPageToken": "0", "models": []},
    }
    for query, page in pages.items():
        assert server.manage("GET", f"/models{query}").json() == page, query


def test_workers_scale_with_torchserves_words(server: DropIn, register: Callable[..., None]) -> None:
    register("scaled")
    scale = functools.partial(server.manage, "PUT")
    reply = scale("/models/scaled?min_worker=1")
    assert (reply.status, reply.json()) == (202, {"status": PROCESSING})
    wait_workers(server, "scaled", 1)
    for query, version, workers in (
        ("min_worker=2&synchronous=true", "", 2),
        ("min_worker=1&max_worker=3&synchronous=true", "", 2),
        ("min_worker=x&max_worker=y&synchronous=true", "/1.11", 1),
        ("min_worker=0&synchronous=true", "/1.11", 0),
    ):
        reply = scale(f"/models/scaled{version}?{query}")
        wait_workers(server, "scaled", workers)
        shown = ", version: 1.11" if version else ""
        assert reply.status == 200
        assert re.fullmatch(rf"Workers scaled to \d for model: scaled{re.escape(shown)}", reply.json()["status"]), query


@pytest.mark.parametrize(
    ("path", "status", "name", "message"),
    [
        ("/models/stays?min_worker=2&max_worker=1", 400, "BadRequest", LESS),
        ("/models/stays?max_worker=-1", 400, "BadRequest", LESS),
        ("/models/none?min_worker=1", 404, "ModelNotFound", "Model not found: none"),
        ("/models/stays/9?min_worker=1", 404, "ModelVersionNotFound", NO_VERSION.format("stays")),
        ("/models/stays/9/set-default", 404, "ModelVersionNotFound", "Model version 9 does not exist for model stays"),
        ("/models/none/1.0/set-default", 404, "ModelNotFound", "Model not found: none"),
    ],
)  # fmt: skip
def test_a_change_that_cannot_be_made_is_refused(
    server: DropIn, register: Callable[..., None], path: str, status: int, name: str, message: str
) -> None:
    register("stays")
    reply = server.manage("PUT", path)
    assert (reply.status, reply.error()) == (status, (status, f"{name}Exception", message))


def test_minus_one_worker_changes_nothing(
    server: DropIn, register: Callable[..., None], differs: Callable[[str], None]
) -> None:
    register("whole")
    assert server.manage("PUT", "/models/whole?min_worker=-1").status == 500
    differs("scale-minus-one")
    (model,) = describe(server, "whole")
    assert (model["minWorkers"], model["maxWorkers"]) == (0, 0)


@pytest.mark.parametrize(("path", "version"), [("", "null"), ("/1.0", "1.0")])
def test_broken_workers_fail_the_scale(server: DropIn, register: Callable[..., None], path: str, version: str) -> None:
    register("fails", "broken.mar")
    reply = server.manage("PUT", f"/models/fails{path}?min_worker=1&synchronous=true")
    message = f"Failed to start workers for model fails version: {version}"
    assert (reply.status, reply.error()) == (500, (500, "InternalServerException", message))


def test_the_default_version_changes_and_stays_till_the_last(server: DropIn, register: Callable[..., None]) -> None:
    register("both")
    register("both", "noopv2.mar")
    said = server.status("PUT", "/models/both/1.2.1/set-default")
    assert said == 'Default version successfully updated for model "both" to "1.2.1"'
    assert describe(server, "both")[0]["modelVersion"] == "1.2.1"
    for path in ("/models/both", "/models/both/1.2.1"):
        reply = server.manage("DELETE", path)
        message = "Cannot remove default version for model both"
        assert (reply.status, reply.error()) == (403, (403, "InvalidModelVersionException", message))
    assert server.status("DELETE", "/models/both/1.11") == 'Model "both" unregistered'
    assert server.status("DELETE", "/models/both/?sync=true") == 'Model "both" unregistered'
    assert server.manage("GET", "/models/both").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "name", "message"),
    [
        ("DELETE", "/models/none", 404, "ModelNotFound", "Model not found: none"),
        ("GET", "/models/none", 404, "ModelNotFound", "Model not found: none"),
        ("GET", "/models/there/9", 404, "ModelVersionNotFound", NO_VERSION.format("there")),
        ("DELETE", "/models/there/9", 404, "ModelVersionNotFound", NO_VERSION.format("there")),
        ("GET", "/nowhere", 404, "ResourceNotFound", NOT_FOUND),
        ("GET", "/token?type=inference", 404, "ResourceNotFound", NOT_FOUND),
        ("PUT", "/models/there/1.11/other", 404, "ResourceNotFound", NOT_FOUND),
        ("PUT", "/models", 405, "MethodNotAllowed", NOT_ALLOWED),
        ("POST", "/models/there", 405, "MethodNotAllowed", NOT_ALLOWED),
        ("GET", "/v1/models/none", 404, "ModelNotFound", "Model not found: none"),
        ("DELETE", "/workflows/none", 404, "WorkflowNotFound", "Workflow not found: none"),
        ("GET", "/workflows/none", 404, "WorkflowNotFound", "Workflow not found: none"),
        ("PUT", "/workflows/none", 405, "MethodNotAllowed", NOT_ALLOWED),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_in_torchserves_words(
    server: DropIn, register: Callable[..., None], method: str, path: str, status: int, name: str, message: str
) -> None:
    register("there")
    reply = server.manage(method, path)
    assert (reply.status, reply.error()) == (status, (status, f"{name}Exception", message))
