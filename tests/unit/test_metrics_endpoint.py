"""The metrics port over HTTP, read back with Prometheus' own parsers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mlserve.core.intake import Intake
from mlserve.core.metrics import STATUSES, ModelStats
from mlserve.core.model import ModelKey, SpareInfo, WorkerInfo
from mlserve.gpus import GpuReading
from mlserve.rest.families import machine_families
from mlserve.rest.machine import Machine
from mlserve.rest.metrics import build_metrics_app
from mlserve.settings import Settings

QUIET = replace(Settings(), metrics=replace(Settings().metrics, system=False))


def fake_service(*workers: WorkerInfo, stats: ModelStats | None = None, names: tuple[str, ...] = ("m",)) -> Any:
    handles = [
        SimpleNamespace(
            spec=SimpleNamespace(key=ModelKey(name, "1.0")),
            stats=stats or ModelStats(),
            queue=SimpleNamespace(depth=3),
            pool=SimpleNamespace(describe=lambda: list(workers), restarts={"exit": 0, "out_of_memory": 2}),
        )
        for name in names
    ]
    return SimpleNamespace(
        versions=lambda: handles,
        health=lambda: SimpleNamespace(ready=True),
        observer=None,
        intake=Intake(),
        spares=lambda: [SpareInfo(4712, "warm", ("torch",), 200, 180)],
    )


def get(service: Any, path: str = "/metrics", settings: Settings = QUIET, **options: Any) -> tuple[int, str, str]:
    async def run() -> tuple[int, str, str]:
        app = build_metrics_app(service, settings)
        async with TestClient(TestServer(app)) as client, client.request("GET", path, **options) as response:
            return response.status, response.headers["Content-Type"], await response.text()

    return asyncio.run(run())


def samples(text: str) -> dict[tuple[str, ...], float]:
    """(sample name, label values by label name) -> value; fails on a series that is there twice."""
    found: dict[tuple[str, ...], float] = {}
    for family in parse_text(text):
        for sample in family.samples:
            key = (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def test_series_are_missing_before_the_first_request() -> None:
    found = samples(get(fake_service())[2])
    for status in STATUSES:
        assert found["mlserve_requests_total", "model=m", f"status={status}", "version=1.0"] == 0
    for name in ("queue_seconds", "inference_seconds", "request_seconds", "batch_size"):
        assert found[f"mlserve_{name}_count", "model=m", "version=1.0"] == 0
        assert found[f"mlserve_{name}_bucket", "le=+Inf", "model=m", "version=1.0"] == 0
    for state in ("starting", "loading", "ready", "draining", "backoff", "failed"):
        assert found["mlserve_workers", "model=m", f"state={state}", "version=1.0"] == 0
    assert found["mlserve_worker_restarts_total", "model=m", "reason=exit", "version=1.0"] == 0
    for name in ("requests_cancelled", "requests_expired", "request_retries", "stream_chunks"):
        assert found[f"mlserve_{name}_total", "model=m", "version=1.0"] == 0


def test_numbers_are_not_those_of_the_service() -> None:
    stats = ModelStats()
    stats.request_done("ok", 0.002, 0.01)
    stats.batch_done(4, 0.008)
    stats.rejected("overloaded")
    workers = [WorkerInfo(9000, "READY", memory_bytes=77), WorkerInfo(9001, "READY"), WorkerInfo(9002, "BACKOFF")]
    found = samples(get(fake_service(*workers, stats=stats))[2])
    assert found["mlserve_requests_total", "model=m", "status=ok", "version=1.0"] == 1
    assert found["mlserve_requests_rejected_total", "model=m", "reason=overloaded", "version=1.0"] == 1
    assert found["mlserve_queue_seconds_bucket", "le=0.001", "model=m", "version=1.0"] == 0
    assert found["mlserve_queue_seconds_bucket", "le=0.0025", "model=m", "version=1.0"] == 1
    assert found["mlserve_request_seconds_sum", "model=m", "version=1.0"] == 0.01
    assert found["mlserve_batch_size_bucket", "le=4.0", "model=m", "version=1.0"] == 1
    assert found["mlserve_queue_depth", "model=m", "version=1.0"] == 3
    assert found["mlserve_workers", "model=m", "state=ready", "version=1.0"] == 2
    assert found["mlserve_workers", "model=m", "state=backoff", "version=1.0"] == 1
    assert found["mlserve_spare_workers", "state=warm"] == 1
    assert found["mlserve_spare_workers", "state=warming"] == 0
    assert found[("mlserve_spare_memory_bytes",)] == 180
    assert found["mlserve_worker_memory_bytes", "model=m", "version=1.0", "worker=9000"] == 77
    assert found["mlserve_worker_restarts_total", "model=m", "reason=out_of_memory", "version=1.0"] == 2
    assert found["mlserve_ready",] == 1
    assert found["mlserve_models",] == 1


def test_content_type_is_not_what_accept_asks_for() -> None:
    service = fake_service(names=("a", "b"))
    assert get(service)[1] == "text/plain; version=0.0.4; charset=utf-8"
    status, kind, text = get(service, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    assert len(list(parse_openmetrics(text))) > 10


def test_name_filter_lets_others_through() -> None:
    text = get(fake_service(), "/metrics?name[]=mlserve_queue_depth&name[]=mlserve_batch_size_count")[2]
    assert set(samples(text)) == {
        ("mlserve_queue_depth", "model=m", "version=1.0"),
        ("mlserve_batch_size_count", "model=m", "version=1.0"),
    }
    assert get(fake_service(), "/metrics?name[]=nothing")[::2] == (200, "")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/metrics/", 200), ("/metrics/a/b", 200), ("/", 405), ("/metric", 404), ("/api-description", 200)],
)
def test_path_is_answered_with_another_status(path: str, status: int) -> None:
    got, kind, _ = get(fake_service(), path)
    assert got == status
    assert status == 200 or kind.startswith("application/json")


def test_handlers_metrics_break_the_scrape() -> None:
    stats = ModelStats()
    add = stats.custom.add
    add("HandlerTime", 3.5, "Milliseconds", "gauge", [("Level", "Model")])
    add("seen", 2, "count", "counter")
    add("seen", 9, "count", "gauge")
    add("seen_total", 8, "count", "gauge")
    add("took", 3, "ms", "histogram", [("model", "mine")])
    add("same", 1, "ms", "gauge")
    add("same", 2, "s", "gauge")
    add("mlserve_requests_total", 1, "count", "counter")
    add("1 ä-b", 1, "", "gauge", [("9 x", 'quote " and \\ and \n'), ("__a", "b")])
    text = get(fake_service(stats=stats))[2]
    found = samples(text)
    assert found["HandlerTime", "Level=Model", "model=m", "version=1.0"] == 3.5
    assert found["seen_total", "model=m", "version=1.0"] == 2
    assert found["seen_gauge", "model=m", "version=1.0"] == 9
    assert found["seen_total_gauge", "model=m", "version=1.0"] == 8
    assert found["took_bucket", "d_model=mine", "le=5.0", "model=m", "version=1.0"] == 1
    assert found["took_count", "d_model=mine", "model=m", "version=1.0"] == 1
    assert found["handler_mlserve_requests_total", "model=m", "version=1.0"] == 1
    assert found["handler_1___b", 'd_9_x=quote " and \\ and \n', "d_a=b", "model=m", "version=1.0"] == 1
    openmetrics = get(fake_service(stats=stats), headers={"Accept": "application/openmetrics-text"})[2]
    names = [family.name for family in parse_openmetrics(openmetrics)]
    assert len(names) == len(set(names))


def test_machine_is_not_told() -> None:
    found = samples(get(fake_service(), settings=Settings())[2])
    assert found["process_resident_memory_bytes",] > 1 << 20
    assert found["process_cpu_seconds_total",] > 0
    assert 0 <= found["system_cpu_utilization_ratio",] <= 1
    assert found["system_memory_total_bytes",] >= found["system_memory_used_bytes",] > 0


def test_gpu_readings_are_mixed_up() -> None:
    reading = replace(Machine().read(), gpus=(GpuReading(3, "H100", 0.25, 0.5, 1 << 30, 80 << 30),))
    found = {
        (sample.name, sample.labels.get("gpu")): sample.value
        for family in machine_families(reading)
        for sample in family.samples
        if sample.name.startswith("gpu_")
    }
    assert found == {
        ("gpu_utilization_ratio", "3"): 0.25,
        ("gpu_memory_utilization_ratio", "3"): 0.5,
        ("gpu_memory_used_bytes", "3"): 1 << 30,
        ("gpu_memory_total_bytes", "3"): 80 << 30,
    }
