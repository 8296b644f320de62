"""The management API where ``server.http_style`` is TorchServe's: statuses and texts that its scripts look for."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mlserve.core.model import ModelDescription, ModelKey, ModelSpec, WorkerInfo
from mlserve.errors import ErrorKind, ModelNotFound, WorkerStartError
from mlserve.protocols.tokens import TokenGuard
from mlserve.rest.management import build_management_app
from mlserve.settings import ModelsSettings, ServerSettings, Settings
from mlserve.settings.access import AuthSettings

TORCHSERVE = ServerSettings(http_style="torchserve", error_detail="none")
JSON = {"Content-Type": "application/json"}


class FakeService:
    """One model ``m`` with a worker; remembers what it was asked, and fails with ``failure``."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None
        self.workers = [WorkerInfo(9000, "READY", pid=4711, gpu_id=2)]
        self.scaled = 1

    def spares(self) -> list[Any]:
        return []

    async def register(self, url: str, overrides: dict[str, Any], **options: Any) -> Any:
        self.calls.append((url, overrides, options))
        if self.failure:
            raise self.failure
        return SimpleNamespace(key=ModelKey("m", "1.0"), workers=options["initial_workers"] or 0, done=True)

    async def scale(self, name: str, version: str = "", **options: Any) -> Any:
        self.calls.append((name, version, options))
        if self.failure:
            raise self.failure
        self.workers = self.workers[: options["max_workers"]]
        return SimpleNamespace(key=ModelKey("m", "1.0"), workers=self.scaled, done=options.get("synchronous", False))

    async def unregister(self, name: str, version: str = "") -> None:
        self.calls.append((name, version))

    def list_models(self) -> list[tuple[str, str]]:
        return [("m", "m.mar")]

    def describe(self, name: str, version: str = "") -> list[ModelDescription]:
        if name != "m":
            raise ModelNotFound(f"Model not found: {name}")
        spec = ModelSpec(
            ModelKey(name, "1.0"), "/d", "h", client_timeout_ms=5.0, sequence_batching=True, max_num_sequence=4,
            sequence_timeout_ms=9, max_sequence_job_queue_size=3, sequence_max_idle_ms=7, use_job_ticket=True,
            continuous_batching=True, parallel_type="tp", parallel_level=2, device_type="gpu", device_ids=(1, 2),
        )  # fmt: skip
        return [ModelDescription(spec, "READY", True, self.workers, 0, 1)]


def settings(*, model_api: bool = True, unregister_timeout: float = 120.0) -> Settings:
    models = ModelsSettings(model_api=model_api, unregister_timeout=unregister_timeout)
    return Settings(server=TORCHSERVE, models=models)


def ask(
    service: Any,
    method: str,
    path: str,
    chosen: Settings | None = None,
    guard: TokenGuard | None = None,
    **options: Any,
) -> tuple[int, Any]:
    async def run() -> tuple[int, Any]:
        app = build_management_app(service, chosen or settings(), guard)
        async with TestClient(TestServer(app)) as client, client.request(method, path, **options) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.strip() else text

    return asyncio.run(run())


def error(code: int, kind: str, message: str) -> tuple[int, Any]:
    return code, {"code": code, "type": kind, "message": message}


def failing(kind: ErrorKind = ErrorKind.INTERNAL) -> FakeService:
    service = FakeService()
    service.failure = WorkerStartError(
        "Failed to start workers for model m version: 1.0. Worker 9000 could not load the model: x",
        kind=kind,
        detail="Traceback",
    )
    return service


def test_failed_start_of_workers_has_other_words() -> None:
    text = "Failed to start workers for model m version: 1.0"
    failure = error(500, "InternalServerException", text)
    assert ask(failing(), "POST", "/models?url=m.mar&initial_workers=1") == failure
    assert ask(failing(), "PUT", "/models/m/1.0?synchronous=true") == failure
    null = error(500, "InternalServerException", "Failed to start workers for model m version: null")
    assert ask(failing(), "PUT", "/models/m?synchronous=true") == null


def test_model_that_does_not_fit_has_another_status() -> None:
    failure = error(507, "InternalServerException", "Failed to start workers for model m version: 1.0")
    assert ask(failing(ErrorKind.OUT_OF_MEMORY), "POST", "/models?url=m.mar&initial_workers=1") == failure


def test_malformed_json_has_another_status() -> None:
    status, body = ask(FakeService(), "POST", "/models", data="{'url': ", headers=JSON)
    assert (status, body["type"]) == (500, "JsonSyntaxException")


def test_lenient_json_is_not_understood() -> None:
    service = FakeService()
    body = "{'url':'m.mar','batch_size':'3','initial_workers':'1','synchronous':'true'}"
    assert ask(service, "POST", "/models", data=body, headers=JSON)[0] == 200
    assert service.calls == [("m.mar", {"batch_size": 3}, {"initial_workers": 1, "synchronous": True})]


def test_negative_workers_have_another_status() -> None:
    failure = error(500, "IndexOutOfBoundsException", "Index -1 out of bounds for length 0")
    assert ask(FakeService(), "PUT", "/models/m?min_worker=-1") == failure


def test_workers_that_are_started_again_count_as_there() -> None:
    service = FakeService()
    service.scaled = 2
    answer = ask(service, "PUT", "/models/m?min_worker=2&synchronous=true")
    assert answer == (206, {"status": "Workers scaling in progress..."})


def test_scaled_text_counts_other_workers() -> None:
    answer = ask(FakeService(), "PUT", "/models/m/1.0?min_worker=1&max_worker=3&synchronous=true")
    assert answer == (200, {"status": "Workers scaled to 1 for model: m, version: 1.0"})


@pytest.mark.parametrize(("method", "path"), [("POST", "/models?url=m.mar"), ("DELETE", "/models/m")])
def test_closed_model_api_says_more(method: str, path: str) -> None:
    text = "Requested method is not allowed, please refer to API document."
    assert ask(FakeService(), method, path, settings(model_api=False)) == error(405, "MethodNotAllowedException", text)


def test_unregister_timeout_of_zero_removes_at_once() -> None:
    service, chosen = FakeService(), settings(unregister_timeout=0.0)
    failure = error(408, "RequestTimeoutException", "Timed out while cleaning resources: m")
    assert ask(service, "DELETE", "/models/m", chosen) == failure
    assert ask(service, "DELETE", "/models/m", chosen) == (200, {"status": 'Model "m" unregistered'})
    assert service.calls == [("m", "", {"min_workers": 0, "max_workers": 0}), ("m", "")]


def test_describe_hides_what_the_model_is() -> None:
    (shown,) = ask(FakeService(), "GET", "/models/m")[1]
    keys = list(shown)
    assert keys[keys.index("maxRetryTimeoutInSec") : keys.index("loadedAtStartup")] == [
        "maxRetryTimeoutInSec", "clientTimeoutInMills", "parallelType", "parallelLevel", "deviceType", "deviceIds",
        "continuousBatching", "useJobTicket", "useVenv", "stateful", "sequenceMaxIdleMSec", "sequenceTimeoutMSec",
        "maxNumSequence", "maxSequenceJobQueueSize",
    ]  # fmt: skip
    assert [shown[key] for key in keys[keys.index("clientTimeoutInMills") : keys.index("loadedAtStartup")]] == [
        5, "tp", 2, "gpu", [1, 2], True, True, False, True, 7, 9, 4, 3,
    ]  # fmt: skip


class Guarded:
    """An app that asks for tokens."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "key_file.json"
        self.guard = TokenGuard(AuthSettings(tokens=True, key_file=str(self.file)))
        self.guard.write()

    def ask(self, method: str, path: str, key: str = "") -> tuple[int, Any]:
        sent = json.loads(self.file.read_text())[key]["key"] if key else "abcd1234"
        return ask(FakeService(), method, path, guard=self.guard, headers={"Authorization": f"Bearer {sent}"})


REFUSED = error(
    400,
    "InvalidKeyException",
    "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
)


def test_caller_without_a_token_learns_what_there_is(tmp_path: Path) -> None:
    app = Guarded(tmp_path)
    for method, path in (("GET", "/models"), ("GET", "/nope"), ("POST", "/models?url=m.mar"), ("GET", "/")):
        assert app.ask(method, path) == REFUSED
        assert app.ask(method, path, "inference") == REFUSED
    assert app.ask("GET", "/models", "management")[0] == 200
    assert app.ask("GET", "/nope", "management")[0] == 404
    assert ask(FakeService(), "GET", "/models", guard=app.guard) == REFUSED


def test_description_of_the_api_needs_a_token(tmp_path: Path) -> None:
    app = Guarded(tmp_path)
    assert app.ask("OPTIONS", "/")[0] == 200
    assert app.ask("GET", "/api-description")[0] == 200
    assert app.ask("GET", "/api-description/..;/models")[0] == 400


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("kind", ["inference", "management"])
def test_token_is_not_renewed(tmp_path: Path, method: str, kind: str) -> None:
    app = Guarded(tmp_path)
    before = json.loads(app.file.read_text())
    assert app.ask(method, f"/token?type={kind}", "API") == (200, "\n")
    after = json.loads(app.file.read_text())
    assert [name for name in after if after[name] != before[name]] == [kind]


@pytest.mark.parametrize(
    ("path", "key"), [("/token?type=inference", "management"), ("/token", "API"), ("/token?type=x", "API")]
)
def test_token_is_renewed_for_anybody(tmp_path: Path, path: str, key: str) -> None:
    app = Guarded(tmp_path)
    text = "Token Authentication failed. Token either incorrect, expired, or not provided correctly"
    assert app.ask("GET", path, key) == error(400, "InvalidKeyException", text)


def test_token_route_is_there_without_tokens() -> None:
    assert ask(FakeService(), "GET", "/token?type=inference")[0] == 404


def test_api_is_described_as_mlserves_own() -> None:
    status, document = ask(FakeService(), "OPTIONS", "/")
    assert (status, document["info"]["title"]) == (200, "TorchServe APIs")
    status, document = ask(FakeService(), "OPTIONS", "/models/m")
    assert (status, document["info"]["title"]) == (200, "RESTful Management API for: m")
    assert ask(FakeService(), "OPTIONS", "/models/x") == error(404, "ModelNotFoundException", "Model not found: x")
