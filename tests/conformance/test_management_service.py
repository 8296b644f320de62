"""The management and metrics APIs over the real service: one story of a model's life, with workers that are objects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from mlserve.core.messages import InferenceRequest, Part
from mlserve.core.model import ModelKey, ModelSpec, WorkerInfo
from mlserve.core.service import InferenceService
from mlserve.errors import ErrorKind, ModelNotFound, NoWorker, WorkerStartError
from mlserve.rest.management import build_management_app
from mlserve.rest.metrics import build_metrics_app
from mlserve.settings import Settings


class ObjectSlot:
    def __init__(self, worker_id: int) -> None:
        self.worker_id = worker_id
        self.in_flight = 0

    def send(self, batch: Any) -> None:
        raise AssertionError("nothing is sent in this test")

    def cancel(self, batch: Any, index: int) -> None:
        raise AssertionError("nothing is cancelled in this test")


class ObjectPool:
    """Workers that are ready at once, unless the handler is called ``broken``."""

    def __init__(self, spec: ModelSpec, events: Any) -> None:
        self._spec = spec
        self._events = events
        self.slots: list[ObjectSlot] = []
        self.restarts = {"exit": 0}

    @property
    def target(self) -> int:
        return len(self.slots)

    live = target

    async def scale(self, count: int) -> None:
        if count and self._spec.handler == "broken":
            raise WorkerStartError(
                f"Failed to start workers for model {self._spec.key.name} version: {self._spec.key.version}",
                kind=ErrorKind.OUT_OF_MEMORY,
                detail="Traceback\nMemoryError: no room",
            )
        while len(self.slots) < count:
            self.slots.append(ObjectSlot(9000 + len(self.slots)))
            self._events.slot_ready(self.slots[-1])
        while len(self.slots) > count:
            self._events.slot_closing(self.slots.pop())

    async def stop(self, grace: float) -> None:
        await self.scale(0)

    def describe(self) -> list[WorkerInfo]:
        return [WorkerInfo(slot.worker_id, "READY", pid=1, started_at=1.0) for slot in self.slots]


class ObjectEngine:
    def open(self, spec: ModelSpec, events: Any) -> ObjectPool:
        return ObjectPool(spec, events)

    def spares(self) -> list[Any]:
        return []

    async def close(self) -> None:
        pass


class ObjectStore:
    """``name@version`` is a model; anything else is not there."""

    def __init__(self) -> None:
        self.released: list[str] = []

    async def resolve(self, url: str, overrides: dict[str, Any]) -> ModelSpec:
        name, found, version = url.partition("@")
        if not found:
            raise ModelNotFound(f"Model not found at: {url}")
        known = {key: value for key, value in overrides.items() if key not in ("model_name", "handler")}
        key = ModelKey(overrides.get("model_name", name), version)
        sources = dict.fromkeys(known, "register")
        return ModelSpec(key, "/x", overrides.get("handler", "ok"), url=url, provenance=sources, **known)

    def release(self, spec: ModelSpec) -> None:
        self.released.append(spec.url)

    def forget(self, spec: ModelSpec) -> None:
        pass


def story(steps: Any) -> None:
    """Run ``steps(ask, scrape, service, store)`` against both apps over one service."""

    async def run() -> None:
        store = ObjectStore()
        service = InferenceService(ObjectEngine(), store, asyncio.get_running_loop())  # type: ignore[arg-type]
        management = TestServer(build_management_app(service, Settings()))
        metrics = TestServer(build_metrics_app(service, Settings()))
        async with TestClient(management) as client, TestClient(metrics) as scraper:

            async def ask(method: str, path: str) -> tuple[int, Any]:
                async with client.request(method, path) as response:
                    return response.status, await response.json()

            async def scrape() -> str:
                async with scraper.get("/metrics") as response:
                    return await response.text()

            await steps(ask, scrape, service, store)

    asyncio.run(run())


def test_a_models_life_is_told_in_other_words_than_the_contracts() -> None:
    async def steps(ask: Any, scrape: Any, service: InferenceService, store: ObjectStore) -> None:
        assert await ask("POST", "/models?url=m@1.0&initial_workers=1&batch_size=8") == (
            200,
            {"status": 'Model "m" Version: 1.0 registered with 1 initial workers'},
        )
        assert (await ask("POST", "/models?url=m@1.0"))[1] == {
            "code": 409,
            "type": "ConflictStatusException",
            "message": "Model version 1.0 is already registered for model m",
        }
        assert (await ask("POST", "/models?url=m@2.0&initial_workers=1"))[0] == 200
        assert (await ask("GET", "/models"))[1] == {"models": [{"modelName": "m", "modelUrl": "m@1.0"}]}
        assert await ask("PUT", "/models/m/2.0?min_worker=3&synchronous=true") == (
            200,
            {"status": "Workers scaled to 3 for model: m, version: 2.0"},
        )
        _, models = await ask("GET", "/models/m/all")
        assert [(item["modelVersion"], len(item["workers"]), item["defaultVersion"]) for item in models] == [
            ("1.0", 1, True),
            ("2.0", 3, False),
        ]
        assert models[0]["batchSize"] == 8
        assert (await ask("DELETE", "/models/m"))[0] == 403
        assert (await ask("PUT", "/models/m/2.0/set-default"))[0] == 200
        assert await ask("DELETE", "/models/m/1.0") == (200, {"status": 'Model "m" unregistered'})
        assert await ask("GET", "/v1/models/m") == (200, {"name": "m", "ready": True})
        assert (await ask("PUT", "/models/m?min_worker=0&synchronous=true"))[0] == 200
        assert await ask("GET", "/v1/models/m") == (200, {"name": "m", "ready": False})
        assert (await ask("DELETE", "/models/m"))[0] == 200
        assert await ask("GET", "/models") == (200, {"models": []})
        assert set(store.released) == {"m@1.0", "m@2.0"}

    story(steps)


def test_model_whose_workers_cannot_start_stays_registered() -> None:
    async def steps(ask: Any, scrape: Any, service: InferenceService, store: ObjectStore) -> None:
        status, body = await ask("POST", "/models?url=m@1.0&handler=broken&initial_workers=1")
        assert (status, body["type"]) == (507, "OutOfMemoryException")
        assert body["message"] == "Failed to start workers for model m version: 1.0: MemoryError: no room"
        assert (await ask("GET", "/models/m"))[0] == 404
        assert store.released == ["m@1.0"]

    story(steps)


def test_failure_of_an_asynchronous_start_is_lost() -> None:
    async def steps(ask: Any, scrape: Any, service: InferenceService, store: ObjectStore) -> None:
        path = "/models?url=m@1.0&handler=broken&initial_workers=1&synchronous=false"
        assert await ask("POST", path) == (202, {"status": "Processing worker updates..."})
        _, [model] = await ask("GET", "/models/m")
        assert "Failed to start workers" in model["lastError"]

    story(steps)


def test_metrics_are_missing_right_after_registration() -> None:
    async def steps(ask: Any, scrape: Any, service: InferenceService, store: ObjectStore) -> None:
        assert 'model="m"' not in await scrape()
        await ask("POST", "/models?url=m@1.0&initial_workers=2")
        text = await scrape()
        for line in (
            'mlserve_requests_total{model="m",status="ok",version="1.0"} 0.0',
            'mlserve_queue_seconds_count{model="m",version="1.0"} 0.0',
            'mlserve_queue_depth{model="m",version="1.0"} 0.0',
            'mlserve_workers{model="m",state="ready",version="1.0"} 2.0',
            'mlserve_worker_restarts_total{model="m",reason="exit",version="1.0"} 0.0',
        ):
            assert line in text.splitlines()
        await ask("PUT", "/models/m?min_worker=0&synchronous=true")
        request = InferenceRequest("r", [Part("body", b"")])
        with pytest.raises(NoWorker):
            service.submit(service.find("m"), request, lambda job: None, lambda job, chunk: None)
        line = 'mlserve_requests_rejected_total{model="m",reason="not_ready",version="1.0"} 1.0'
        assert line in (await scrape()).splitlines()

    story(steps)
