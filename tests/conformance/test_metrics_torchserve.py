"""TorchServe's metrics and log files of a real server in the profile: what its users' patterns and scripts find."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import LiveServer, running

HANDLERS = Path(__file__).parent / "handlers"
PROFILE = ["--profile", "torchserve", "--no-tokens"]
DECLARED = """
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [Level, Hostname]}
    - {name: ts_inference_requests_total, unit: Count, dimensions: [model_name, model_version, hostname]}
    - {name: ts_inference_latency_microseconds, unit: Microseconds, dimensions: [model_name, model_version, hostname]}
    - {name: ts_queue_latency_microseconds, unit: Microseconds, dimensions: [model_name, model_version, hostname]}
  gauge:
    - {name: QueueTime, unit: Milliseconds, dimensions: [Level, Hostname]}
    - {name: WorkerThreadTime, unit: Milliseconds, dimensions: [Level, Hostname]}
    - {name: WorkerLoadTime, unit: Milliseconds, dimensions: [WorkerName, Level, Hostname]}
    - {name: MemoryUsed, unit: Megabytes, dimensions: [Level, Hostname]}
model_metrics:
  counter:
    - {name: InferenceRequestCount, unit: count, dimensions: []}
    - {name: InitializeCallCount, unit: count, dimensions: [ModelName, Level]}
  gauge:
    - {name: PredictionTime, unit: ms, dimensions: [ModelName, Level]}
    - {name: RequestBatchSize, unit: count, dimensions: [ModelName]}
    - {name: SizeOfImage, unit: kB, dimensions: [ModelName, Level]}
"""
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"


def start(directory: Path, *models: str, **settings: str) -> Iterator[LiveServer]:
    (directory / "metrics.yaml").write_text(DECLARED)
    given = {"METRICS_SYSTEM": "true", "DEFAULTS_WORKERS": "1", "METRICS_CONFIG": "metrics.yaml", **settings}
    names = [f"{name}={HANDLERS / name}.py" for name in models]
    with running(directory, *names, settings=given, args=PROFILE) as live:
        live.wait_for(lambda: all(live.worker_pids(name) for name in models if name == "reports"))
        yield live


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    yield from start(tmp_path_factory.mktemp("scraped"), "reports", METRICS_MODE="prometheus")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    yield from start(tmp_path_factory.mktemp("logged"), "reports")


def file_of(server: LiveServer, name: str) -> str:
    return (server.log.parent / "logs" / f"{name}.log").read_text()


def test_pattern_of_a_dashboard_finds_nothing_in_a_scrape(scraped: LiveServer) -> None:
    scraped.predict("reports")
    scraped.request("POST", "/predictions/reports/1.0", b"x")
    text = scraped.request("GET", "/metrics", api="metrics").body.decode()
    number = r"\d+\.\d+$"
    for pattern in (
        r"# TYPE Requests2XX counter$",
        rf'Requests2XX{{Level="Host",Hostname=".+",}} {number}',
        r'ts_inference_requests_total{model_name="reports",model_version="default",hostname=".+",} 1.0$',
        r'ts_inference_requests_total{model_name="reports",model_version="1.0",hostname=".+",} 1.0$',
        rf'ts_inference_latency_microseconds{{model_name="reports",model_version="default",hostname=".+",}} {number}',
        rf'ts_queue_latency_microseconds{{model_name="reports",model_version="default",hostname=".+",}} {number}',
        rf'QueueTime{{Level="Host",Hostname=".+",}} {number}',
        rf'WorkerThreadTime{{Level="Host",Hostname=".+",}} {number}',
        rf'WorkerLoadTime{{WorkerName="W-9000-reports_1.0",Level="Host",Hostname=".+",}} {number}',
        rf'MemoryUsed{{Level="Host",Hostname=".+",}} {number}',
        rf'PredictionTime{{ModelName="reports",Level="Model",Hostname=".+",}} {number}',
        r'InferenceRequestCount{Hostname=".+",} 2.0$',
        r'InitializeCallCount{ModelName="reports",Level="Model",Hostname=".+",} 1.0$',
        r'RequestBatchSize{ModelName="reports",Hostname=".+",} 1.0$',
        r'SizeOfImage{ModelName="reports",Level="Model",Hostname=".+",} 4.0$',
    ):
        assert len(re.findall(f"^{pattern}", text, re.MULTILINE)) == 1, pattern
    assert "HandlerMethodTime" not in text, "it is declared nowhere"
    assert "Requests4XX" not in text, "the file leaves it out"
    assert 'mlserve_requests_total{model="reports",version="1.0",status="ok",} 2.0' in text
    assert file_of(scraped, "ts_metrics") == file_of(scraped, "model_metrics") == ""


def test_lines_of_log_mode_are_not_in_their_files(logged: LiveServer) -> None:
    scrape = logged.request("GET", "/metrics", api="metrics")
    assert (scrape.status, scrape.body) == (200, b"")
    request_id = logged.predict("reports").body.decode()
    own = file_of(logged, "model_metrics")  # as soon as the answer is there
    head = rf"^{STAMP} - "
    tail = rf",requestID:{request_id},timestamp:\d+$"
    for pattern in (
        r"InitializeCallCount.count:1.0\|#ModelName:reports,Level:Model\|#hostname:.+,requestID:[0-9a-f-]{36},",
        r"InferenceRequestCount.count:1.0\|#\|#hostname:.+,requestID:null,timestamp:\d+$",
        rf"SizeOfImage.kB:4.0\|#ModelName:reports,Level:Model\|#hostname:[^,]+{tail}",
        rf"PredictionTime.ms:\d+\.\d+\|#ModelName:reports,Level:Model\|#hostname:[^,]+{tail}",
    ):
        assert len(re.findall(head + pattern, own, re.MULTILINE)) == 1, (pattern, own)
    assert "HandlerMethodTime" not in own
    logged.wait_for(lambda: "QueueTime.Milliseconds" in file_of(logged, "ts_metrics"))
    server = file_of(logged, "ts_metrics")
    for text in (
        "MemoryUsed.Megabytes:",
        "ts_inference_requests_total.Count:1.0|#model_name:reports,model_version:default|#hostname:",
        "Requests2XX.Count:1.0|#Level:Host|#hostname:",
        "|#WorkerName:W-9000-reports_1.0,Level:Host|#hostname:",
    ):
        assert text in server, text
    assert "TS_METRICS - MemoryUsed.Megabytes:" in logged.log_text()


def test_log_files_are_missing_or_their_lines_have_another_form(logged: LiveServer) -> None:
    logged.predict("reports")
    logged.request("GET", "/models/none", api="management")
    logged.wait_for(lambda: "to standard error" in file_of(logged, "model_log"))
    logged.wait_for(lambda: "/models/none" in file_of(logged, "access_log"))
    model = file_of(logged, "model_log")
    thread = "W-9000-reports_1.0"
    for pattern in (
        rf"\[INFO \] {thread}-stdout MODEL_LOG - \[PID\]\d+$",
        rf"\[INFO \] {thread}-stdout MODEL_LOG - Torch worker started\.$",
        rf"\[INFO \] {thread}-stdout MODEL_LOG - printed while loading$",
        rf"\[WARN \] {thread}-stdout MODEL_LOG - logged while loading$",
        rf"\[WARN \] {thread}-stderr MODEL_LOG - to standard error$",
    ):
        assert re.search(f"^{STAMP} {pattern}", model, re.MULTILINE), (pattern, model)
    access = file_of(logged, "access_log")
    assert re.search(rf'^{STAMP} - /127.0.0.1:\d+ "POST /predictions/reports HTTP/1.1" 200 \d+$', access, re.MULTILINE)
    assert re.search(rf'^{STAMP} - /127.0.0.1:\d+ "GET /models/none HTTP/1.1" 404 \d+$', access, re.MULTILINE)
    console = logged.log_text()
    assert f"{thread}-stdout MODEL_LOG - printed while loading" in console
    assert "ACCESS_LOG - /127.0.0.1:" in console
    assert "ACCESS_LOG - /127.0.0.1:" in file_of(logged, "ts_log")


def test_recovery_of_a_worker_is_not_to_be_read_in_the_log(logged: LiveServer) -> None:
    assert logged.predict("reports", b"die").status >= 500
    logged.wait_for(lambda: "Auto recovery succeeded, reset recoveryStartTS" in logged.log_text())
    text = logged.log_text()
    order = [
        "9000 Worker disconnected. WORKER_MODEL_LOADED",
        "Auto recovery start timestamp: ",
        "Retry worker: 9000 in 1 seconds.",
        "Auto recovery succeeded, reset recoveryStartTS",
    ]
    assert [text.find(line) for line in order] == sorted(text.find(line) for line in order)
    assert all(line in text for line in order)
    assert "Auto recovery failed again" not in text


def test_failures_to_start_are_told_otherwise_than_torchserve_does(tmp_path: Path) -> None:
    """One server for both: a traceback for each try, whole and in the model log only, and a start that takes long."""
    settings = {"DEFAULTS_STARTUP_TIMEOUT": "2"}
    for server in start(tmp_path, "fails_deep", "loads_slowly", **settings):
        server.wait_for(lambda server=server: server.log_text().count("AssertionError") >= 2)
        server.wait_for(lambda server=server: "Backend worker error" in server.log_text())
        lines = server.log_text().splitlines()
        error = next(
            number for number, line in enumerate(lines) if line.endswith("WorkerThread - Backend worker error")
        )
        assert lines[error + 1] == (
            "org.pytorch.serve.wlm.WorkerInitializationException: Backend worker did not respond in given time"
        )
        assert any("Number or consecutive unsuccessful inference 1" in line for line in lines)
        begun = 0
        for _ in range(2):
            end = next(number for number, line in enumerate(lines) if number >= begun and "AssertionError" in line)
            shown = "\n".join(lines[begun : end + 1])
            for text in ("Traceback (most recent call last):", "in initialize", "self.outer()", "in outer", "in inner"):
                assert text in shown, (text, shown)
            begun = end + 1


def test_file_that_declares_nonsense_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "metrics.yaml").write_text("ts_metrics: {summary: []}")
    from support.server import launched

    settings = {"METRICS_CONFIG": "metrics.yaml", "METRICS_FAMILIES": "both"}
    with launched(tmp_path, settings=settings) as server:
        assert server.wait() != 0
        assert "metrics.config: metrics.yaml: ts_metrics.summary: unknown type of metric" in server.log_text()
