"""The management API as clients see it: (request, status, body) cases of TorchServe's contract, over real HTTP."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mlserve.core.model import ModelDescription, ModelKey, ModelSpec, WorkerInfo
from mlserve.errors import (
    ArchiveError,
    DownloadError,
    ErrorKind,
    ModelExists,
    ModelNotFound,
    ServeError,
    VersionInUse,
    VersionNotFound,
    WorkerStartError,
)
from mlserve.rest.management import build_management_app
from mlserve.settings import Settings

FIXED_404 = "Requested resource is not found, please refer to API document."
FIXED_405 = "Requested method is not allowed, please refer to API document."


class FakeService:
    """Two models, ``m`` with versions 1.0 (default) and 2.0 and ``solo`` with 1.0; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failure: BaseException | None = None
        self.models = {"m": ["1.0", "2.0"], "solo": ["1.0"]}
        self.worker = WorkerInfo(9000, "READY", pid=4711, started_at=1795254157.123, memory_bytes=1024)

    def spares(self) -> list[Any]:
        return []

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def find(self, name: str, version: str = "") -> Any:
        self._fail()
        if name not in self.models:
            raise ModelNotFound(f"Model not found: {name}")
        if version and version not in self.models[name]:
            raise VersionNotFound(f"Model version: {version} does not exist for model: {name}")
        pool = SimpleNamespace(live=1)
        return SimpleNamespace(key=ModelKey(name, version or self.models[name][0]), pool=pool)

    async def register(self, url: str, overrides: dict[str, Any], **options: Any) -> Any:
        self.calls.append(("register", url, overrides, options))
        self._fail()
        workers = options["initial_workers"] or 0
        key = ModelKey(overrides.get("model_name", "new"), "1.0")
        return SimpleNamespace(key=key, workers=workers, done=options["synchronous"] or not workers)

    async def scale(self, name: str, version: str = "", **options: Any) -> Any:
        self.find(name, version)
        self.calls.append(("scale", name, version, options))
        return SimpleNamespace(key=None, workers=options["min_workers"], done=options["synchronous"])

    def set_default(self, name: str, version: str) -> None:
        self.find(name)
        if version not in self.models[name]:
            raise VersionNotFound(f"Model version {version} does not exist for model {name}")
        self.calls.append(("set_default", name, version))

    async def unregister(self, name: str, version: str = "") -> ModelKey:
        key = self.find(name, version).key
        if len(self.models[name]) > 1 and key.version == self.models[name][0]:
            raise VersionInUse(f"Cannot remove default version for model {name}")
        self.calls.append(("unregister", name, version))
        return key

    def describe(self, name: str, version: str = "") -> list[ModelDescription]:
        versions = self.models.get(name, []) if version == "all" else [self.find(name, version).key.version]
        spec = ModelSpec(ModelKey(name, ""), "/nowhere", "handler", url=f"{name}.mar", provenance={"batch_size": "api"})
        return [
            ModelDescription(
                replace(spec, key=ModelKey(name, item)),
                "READY",
                item == "1.0",
                [self.worker],
                pending=3,
                ready_workers=1,
            )
            for item in versions
        ]

    def list_models(self) -> list[tuple[str, str]]:
        return [(name, f"{name}.mar") for name in sorted(self.models)]

    def health(self) -> Any:
        return SimpleNamespace(live=True, ready=True, models={"m": True, "solo": False})


def ask(
    service: FakeService, method: str, path: str, settings: Settings | None = None, **options: Any
) -> tuple[int, Any, dict[str, str]]:
    """Status, decoded body and headers of one request to the app."""

    async def run() -> tuple[int, Any, dict[str, str]]:
        app = build_management_app(service, settings or Settings())  # type: ignore[arg-type]
        async with TestClient(TestServer(app)) as client, client.request(method, path, **options) as response:
            text = await response.text()
            assert response.content_type == "application/json"
            return response.status, json.loads(text) if text else None, dict(response.headers)

    return asyncio.run(run())


def error(code: int, kind: str, message: str) -> dict[str, Any]:
    return {"code": code, "type": kind, "message": message}


NO_X = error(404, "ModelNotFoundException", "Model not found: x")
NO_V9 = error(404, "ModelVersionNotFoundException", "Model version: 9 does not exist for model: m")
WORKING = {"status": "Processing worker updates..."}

GOLDEN = [
    (
        "POST",
        "/models?url=a.mar&model_name=m3&initial_workers=2",
        200,
        {"status": 'Model "m3" Version: 1.0 registered with 2 initial workers'},
    ),
    (
        "POST",
        "/models/?url=a.mar&model_name=m3",
        200,
        {
            "status": 'Model "m3" Version: 1.0 registered with 0 initial workers. '
            "Use scale workers API to add workers for the model."
        },
    ),
    ("POST", "/models?url=a.mar&initial_workers=1&synchronous=false", 202, WORKING),
    ("POST", "/models", 400, error(400, "BadRequestException", "Parameter url is required.")),
    ("POST", "/models?url=", 404, error(404, "ModelNotFoundException", "empty url")),
    (
        "POST",
        "/models?url=../a.mar",
        404,
        error(404, "ModelNotFoundException", "Relative path is not allowed in url: ../a.mar"),
    ),
    (
        "POST",
        "/models?url=a.mar&runtime=perl",
        400,
        error(400, "BadRequestException", "Invalid RuntimeType value: perl"),
    ),
    ("PUT", "/models/m?min_worker=2", 202, WORKING),
    ("PUT", "/models/m?min_worker=2&synchronous=true", 200, {"status": "Workers scaled to 2 for model: m"}),
    (
        "PUT",
        "/models/m/2.0/?min_worker=2&synchronous=TRUE",
        200,
        {"status": "Workers scaled to 2 for model: m, version: 2.0"},
    ),
    (
        "PUT",
        "/models/m?min_worker=3&max_worker=2",
        400,
        error(400, "BadRequestException", "max_worker cannot be less than min_worker."),
    ),
    (
        "PUT",
        "/models/m?min_worker=-1",
        400,
        error(400, "BadRequestException", "min_worker must be at least 0, got -1"),
    ),
    ("PUT", "/models/x", 404, NO_X),
    ("PUT", "/models/m/9", 404, NO_V9),
    (
        "PUT",
        "/models/m/2.0/set-default",
        200,
        {"status": 'Default version successfully updated for model "m" to "2.0"'},
    ),
    (
        "PUT",
        "/models/m/9/set-default",
        404,
        error(404, "ModelVersionNotFoundException", "Model version 9 does not exist for model m"),
    ),
    ("GET", "/models/m/2.0/anything", 404, error(404, "ResourceNotFoundException", FIXED_404)),
    ("PUT", "/models/m/2.0/other", 404, error(404, "ResourceNotFoundException", FIXED_404)),
    ("DELETE", "/models/solo", 200, {"status": 'Model "solo" unregistered'}),
    ("DELETE", "/models/m/2.0/?x=y", 200, {"status": 'Model "m" unregistered'}),
    (
        "DELETE",
        "/models/m",
        403,
        error(403, "InvalidModelVersionException", "Cannot remove default version for model m"),
    ),
    ("DELETE", "/models/x", 404, NO_X),
    ("GET", "/models/x", 404, NO_X),
    ("GET", "/models/m/9", 404, NO_V9),
    ("GET", "/v1/models/m", 200, {"name": "m", "ready": True}),
    ("GET", "/v1/models/solo", 200, {"name": "solo", "ready": False}),
    ("GET", "/v1/models/x", 404, NO_X),
    (
        "GET",
        "/models/",
        200,
        {"models": [{"modelName": "m", "modelUrl": "m.mar"}, {"modelName": "solo", "modelUrl": "solo.mar"}]},
    ),
    ("GET", "/models?limit=1", 200, {"nextPageToken": "1", "models": [{"modelName": "m", "modelUrl": "m.mar"}]}),
    (
        "GET",
        "/models?limit=1&next_page_token=1",
        200,
        {"nextPageToken": "2", "models": [{"modelName": "solo", "modelUrl": "solo.mar"}]},
    ),
    ("GET", "/models?limit=1&next_page_token=2", 200, {"models": []}),
    ("GET", "/models?limit=0", 200, {"nextPageToken": "0", "models": []}),
    ("GET", "/", 405, error(405, "MethodNotAllowedException", FIXED_405)),
    ("DELETE", "/models", 405, error(405, "MethodNotAllowedException", FIXED_405)),
    ("POST", "/models/m", 405, error(405, "MethodNotAllowedException", FIXED_405)),
    ("GET", "/nope", 404, error(404, "ResourceNotFoundException", FIXED_404)),
    ("GET", "/models//m", 404, error(404, "ResourceNotFoundException", FIXED_404)),
    ("GET", "/predictions/m", 404, error(404, "ResourceNotFoundException", FIXED_404)),
]


@pytest.mark.parametrize(("method", "path", "status", "body"), GOLDEN, ids=[f"{case[0]} {case[1]}" for case in GOLDEN])
def test_answer_differs_from_the_contract(method: str, path: str, status: int, body: Any) -> None:
    got_status, got_body, _ = ask(FakeService(), method, path)
    assert got_status == status
    assert got_body == body


FAILURES = [
    (ModelNotFound("Model not found at: a.mar"), 404, "ModelNotFoundException"),
    (ArchiveError("Missing Model entry in manifest file."), 400, "InvalidModelException"),
    (DownloadError("Failed to download archive from: http://x/a.mar"), 400, "DownloadArchiveException"),
    (ModelExists("Model version 1.0 is already registered for model m"), 409, "ConflictStatusException"),
    (WorkerStartError("Failed to start workers for model m version: 1.0"), 500, "InternalServerException"),
    (WorkerStartError("Failed to start workers", kind=ErrorKind.OUT_OF_MEMORY), 507, "OutOfMemoryException"),
    (ServeError("stopping", kind=ErrorKind.NOT_READY, retry_after=1), 503, "ServiceUnavailableException"),
]


@pytest.mark.parametrize(("failure", "status", "kind"), FAILURES, ids=[type(row[0]).__name__ for row in FAILURES])
def test_failure_to_register_is_answered_with_another_status(failure: ServeError, status: int, kind: str) -> None:
    service = FakeService()
    service.failure = failure
    assert ask(service, "POST", "/models?url=a.mar")[:2] == (status, error(status, kind, failure.message))


def test_traceback_of_a_worker_that_cannot_load_is_kept_from_the_operator() -> None:
    service = FakeService()
    service.failure = WorkerStartError("Failed to start", detail="Traceback\nImportError: no module named torch\n")
    told = ask(service, "POST", "/models?url=a.mar&initial_workers=1")[1]["message"]
    assert told == "Failed to start: ImportError: no module named torch"
    quiet = replace(Settings(), server=replace(Settings().server, error_detail="none"))
    assert ask(service, "POST", "/models?url=a.mar&initial_workers=1", quiet)[1]["message"] == "Failed to start"


def test_cause_of_an_unexpected_failure_reaches_the_client(caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService()
    service.failure = RuntimeError("/secret/path")
    with caplog.at_level(logging.CRITICAL, "mlserve"):
        status, body, _ = ask(service, "POST", "/models?url=a.mar")
    assert status == 500
    assert "/secret" not in body["message"]
    assert body["type"] == "InternalServerException"


def test_json_body_is_read_like_the_query() -> None:
    by_query, by_body = FakeService(), FakeService()
    ask(by_query, "POST", "/models?url=a.mar&batch_size=4&max_batch_delay=5&initial_workers=1&synchronous=false")
    parameters = {"url": "a.mar", "batch_size": "4", "max_batch_delay": 5, "initial_workers": 1, "synchronous": False}
    ask(by_body, "POST", "/models", json=parameters)
    assert by_query.calls == by_body.calls
    overrides = {"batch_size": 4, "max_batch_delay_ms": 5.0}
    assert by_body.calls == [("register", "a.mar", overrides, {"initial_workers": 1, "synchronous": False})]


@pytest.mark.parametrize("body", ['{"url": ', "[1]", "'a'", "\xff", "{'url': 'a.mar'}"])
def test_malformed_json_body_is_a_server_error(body: str) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    status, answer, _ = ask(FakeService(), "POST", "/models", data=body.encode("latin-1"), headers=headers)
    assert (status, answer["type"]) == (400, "BadRequestException")


def test_oversized_body_is_read_or_answered_by_an_error_page() -> None:
    status, answer, _ = ask(FakeService(), "POST", "/models?url=a.mar", data=io.BytesIO(b"x" * ((1 << 20) + 1)))
    assert status == 413
    assert "1048576 bytes" in answer["message"]


def test_model_api_that_is_off_registers_or_unregisters() -> None:
    settings = replace(Settings(), models=replace(Settings().models, model_api=False))
    service = FakeService()
    for method, path in (("POST", "/models?url=a.mar"), ("DELETE", "/models/solo")):
        status, answer, _ = ask(service, method, path, settings)
        assert (status, answer["type"]) == (405, "MethodNotAllowedException")
    assert service.calls == []
    assert ask(service, "PUT", "/models/m?min_worker=1", settings)[0] == 202


def test_describe_keys_come_in_another_order() -> None:
    service = FakeService()
    service.worker = replace(service.worker, last_exit="killed by signal 9", log_tail=("a", "b"))
    status, [model], _ = ask(service, "GET", "/models/m")
    assert status == 200
    assert list(model) == [
        "modelName", "modelVersion", "modelUrl", "runtime", "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay",
        "responseTimeout", "startupTimeout", "maxRetryTimeoutInSec", "clientTimeoutInMills", "parallelType",
        "parallelLevel", "deviceType", "continuousBatching", "useJobTicket", "useVenv", "stateful",
        "sequenceMaxIdleMSec", "sequenceTimeoutMSec", "maxNumSequence", "maxSequenceJobQueueSize", "loadedAtStartup",
        "workers", "jobQueueStatus", "state", "defaultVersion", "batchPolicy", "lastError", "provenance",
    ]  # fmt: skip
    assert model["jobQueueStatus"] == {"remainingCapacity": 97, "pendingRequests": 3}
    assert (model["maxBatchDelay"], model["responseTimeout"], model["deviceType"]) == (100, 120, "cpu")
    assert model["workers"] == [
        {
            "id": "9000",
            "startTime": "2026-11-21T09:42:37.123Z",
            "status": "READY",
            "memoryUsage": 1024,
            "pid": 4711,
            "gpu": False,
            "gpuUsage": "N/A",
            "state": "READY",
            "device": "cpu",
            "restarts": 0,
            "lastExit": "killed by signal 9",
            "traceback": "",
            "logTail": ["a", "b"],
        }
    ]


@pytest.mark.parametrize(
    ("path", "versions"),
    [
        ("/models/m", ["1.0"]),
        ("/models/m/2.0", ["2.0"]),
        ("/models/m/all", ["1.0", "2.0"]),
        ("/models/%6D/%32.0", ["2.0"]),
    ],
)
def test_describe_shows_other_versions(path: str, versions: list[str]) -> None:
    status, models, _ = ask(FakeService(), "GET", path)
    assert status == 200
    assert [model["modelVersion"] for model in models] == versions


def test_model_version_parameter_is_ignored_by_scale() -> None:
    service = FakeService()
    ask(service, "PUT", "/models/m?model_version=2.0&min_worker=1&max_worker=4")
    options = {"min_workers": 1, "max_workers": 4, "synchronous": False}
    assert service.calls == [("scale", "m", "2.0", options)]


def test_misspelt_parameter_goes_unnoticed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mlserve.rest.management"):
        assert ask(FakeService(), "POST", "/models?url=a.mar&inital_workers=1")[0] == 200
    assert "did you mean 'initial_workers'?" in caplog.text


@pytest.mark.parametrize(("method", "path"), [("OPTIONS", "/"), ("GET", "/api-description"), ("OPTIONS", "/models/m")])
def test_api_document_is_no_openapi(method: str, path: str) -> None:
    status, document, _ = ask(FakeService(), method, path)
    assert status == 200
    assert document["openapi"].startswith("3.")
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["operationId"]
            assert operation["responses"]


def test_body_is_printed_in_another_way_than_torchserve() -> None:
    async def run() -> tuple[bytes, str, str]:
        app = build_management_app(FakeService(), Settings())  # type: ignore[arg-type]
        async with TestClient(TestServer(app)) as client:
            async with client.get("/models/x", headers={"x-request-id": "my-id"}) as response:
                body = await response.read()
            async with client.delete("/models") as refused:
                return body, response.headers["x-request-id"], refused.headers["Allow"]

    body, request_id, allow = asyncio.run(run())
    assert body == (b'{\n  "code": 404,\n  "type": "ModelNotFoundException",\n  "message": "Model not found: x"\n}\n')
    assert (request_id, allow) == ("my-id", "GET, POST")
