"""Metrics as TorchServe's dashboards, scrape jobs and log readers know them: names, types, labels and lines."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import grpc
import pytest
from support.drop_in import DropIn, archive
from support.grpc_client import TIMEOUT

from mlserve.rpc.generated import inference_pb2, inference_pb2_grpc

COUNTING = """
from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes

class Handler:
    def initialize(self, context):
        context.metrics.add_counter("Loads", 1)
        self.sizes = context.metrics.add_metric_to_cache("Sizes", "count", ["ModelName"], MetricTypes.HISTOGRAM)
        self.declared = context.metrics.get_metric("Declared", MetricTypes.GAUGE)

    def handle(self, data, context):
        metrics = context.metrics
        metrics.add_counter("Seen", 1, None, [Dimension("Kind", "x")])
        metrics.add_time("Took", 3.5)
        metrics.add_size("Big", 2, None, "kB")
        metrics.add_percent("Share", 50)
        metrics.add_error("Bad", 2)
        metrics.add_metric("Other", 7, "unit", 0, [Dimension("Kind", "y")], MetricTypes.GAUGE)
        metrics.add_counter("Undeclared", 1)
        self.sizes.add_or_update(0.3, ["counting"])
        self.sizes.add_or_update(700, ["counting"])
        self.declared.add_or_update(4, ["q"])
        return ["OK"] * len(data)
"""
FAILING = """
class Handler:
    def initialize(self, context):
        context.metrics.add_counter("Loads", 1)
        raise ValueError("never")

    def handle(self, data, context):
        return data
"""
TIMED = """
def handle(data, context):
    if data is not None:
        context.metrics.add_time("HandlerTime", 1.5)
        return ["OK"] * len(data)
"""
DECLARED = """
dimensions:
  - &model "ModelName"
  - &level "Level"
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [Level, Hostname]}
    - {name: ts_inference_requests_total, unit: Count, dimensions: [model_name, model_version, hostname]}
    - {name: ts_queue_latency_microseconds, unit: Microseconds, dimensions: [model_name, model_version, hostname]}
  gauge:
    - {name: WorkerLoadTime, unit: Milliseconds, dimensions: [WorkerName, Level, Hostname]}
    - {name: MemoryUsed, unit: Megabytes, dimensions: [Level, Hostname]}
model_metrics:
  counter:
    - {name: Loads, unit: count, dimensions: [*model, *level]}
    - {name: Seen, unit: count, dimensions: [Kind, *model, *level]}
    - {name: Bad, unit: unit, dimensions: [*level]}
  gauge:
    - {name: Took, unit: ms, dimensions: [*model, *level]}
    - {name: Big, unit: kB, dimensions: [*model, *level]}
    - {name: Share, unit: percent, dimensions: [*model, *level]}
    - {name: Other, unit: unit, dimensions: [Kind, *model, *level]}
    - {name: Declared, unit: unit, dimensions: [Which]}
  histogram:
    - {name: Sizes, unit: count, dimensions: [*model]}
"""
HOST, OF_REQUEST = ("Level", "Hostname"), ("model_name", "model_version", "hostname")
OF_HOST = '{Level="Host",Hostname=".+",}'
OF_MODEL = '{ModelName="counting",Level="Model",Hostname="[^"]+",}'
OWN = r"(# (HELP|TYPE) )?(mlserve|process|system|gpu)_"  # families of mlserve's own, which are beside TorchServe's
NUMBER = r"\d+\.\d+(E\d+|e\+\d+)?"
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
USUAL = {
    **{f"Requests{hundred}XX": ("counter", "Count", HOST) for hundred in (2, 4, 5)},
    "ts_inference_requests_total": ("counter", "Count", OF_REQUEST),
    "ts_inference_latency_microseconds": ("counter", "Microseconds", OF_REQUEST),
    "ts_queue_latency_microseconds": ("counter", "Microseconds", OF_REQUEST),
    "QueueTime": ("gauge", "Milliseconds", HOST),
    "WorkerThreadTime": ("gauge", "Milliseconds", HOST),
    "WorkerLoadTime": ("gauge", "Milliseconds", ("WorkerName", *HOST)),
    **{f"{name}Utilization": ("gauge", "Percent", HOST) for name in ("CPU", "Memory", "Disk")},
    **dict.fromkeys(("MemoryUsed", "MemoryAvailable"), ("gauge", "Megabytes", HOST)),
    **dict.fromkeys(("DiskUsage", "DiskAvailable"), ("gauge", "Gigabytes", HOST)),
    "GPUUtilization": ("gauge", "Percent", ()),
    "GPUMemoryUtilization": ("gauge", "Percent", ()),
    "GPUMemoryUsed": ("gauge", "Megabytes", ()),
    "HandlerTime": ("gauge", "ms", ("ModelName", *HOST)),
    "PredictionTime": ("gauge", "ms", ("ModelName", *HOST)),
}  # without a GPU its metrics have no series, and so no labels


@pytest.fixture(scope="module")
def usual(start) -> DropIn:
    """The default set, scraped."""
    live = start({"metrics_mode": "prometheus"})
    archive(live.store, "timed", TIMED)
    archive(live.store, "raising", "def handle(data, context):\n    return None if data is None else 1 / 0\n")
    for name in ("timed", "raising"):
        assert live.manage("POST", f"/models?url={name}.mar&initial_workers=1").status == 200
    for path in ("/predictions/timed", "/predictions/timed/1.0", "/predictions/timed", "/predictions/raising"):
        live.ask("POST", path, b"x")
    live.ask("GET", "/nowhere")
    with grpc.insecure_channel(f"127.0.0.1:{live.ports['grpc_inference']}") as channel:
        request = inference_pb2.PredictionsRequest(model_name="over_grpc", input={"data": b"x"})
        assert live.manage("POST", "/models?url=timed.mar&model_name=over_grpc&initial_workers=1").status == 200
        inference_pb2_grpc.InferenceAPIsServiceStub(channel).Predictions(request, timeout=TIMEOUT)
    assert live.manage("POST", "/models?url=noop.mar&initial_workers=0").status == 200
    assert live.ask("POST", "/predictions/noop", b"x").status == 503
    return live


@pytest.fixture(scope="module")
def declared(start, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], DropIn]:
    """A server in a mode, with metrics of its own and a model that reports them; one per mode.

    In mode legacy metrics that are not declared are taken as well.
    """
    made: dict[str, DropIn] = {}

    def in_mode(mode: str) -> DropIn:
        if mode not in made:
            file = tmp_path_factory.mktemp("metrics") / "metrics.yaml"
            file.write_text(DECLARED)
            settings = {
                "metrics_mode": mode,
                "metrics_config": file,
                "model_metrics_auto_detect": str(mode == "legacy").lower(),
            }
            live = made[mode] = start(settings)
            archive(live.store, "counting", COUNTING)
            archive(live.store, "failing", FAILING)
            assert live.manage("POST", "/models?url=counting.mar&initial_workers=1").status == 200
            assert live.manage("POST", "/models?url=failing.mar&initial_workers=1").status == 500
            for path in ("/predictions/counting", "/predictions/counting/1.0"):
                assert live.ask("POST", path, b"x").body == b"OK"
        return made[mode]

    return in_mode


def scrape(server: DropIn, query: str = "", until: str = "") -> list[str]:
    """The lines of a scrape without mlserve's own families, as soon as one of them matches ``until``."""
    deadline = time.monotonic() + 15
    while True:
        reply = server.ask("GET", f"/metrics{query}", api="metrics")
        assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        lines = [line for line in reply.body.decode().splitlines() if not re.match(OWN, line)]
        if any(re.fullmatch(until, line) for line in lines) or not until:
            return lines
        assert time.monotonic() < deadline, (until, lines)
        time.sleep(0.1)


def lines_of(server: DropIn, name: str, until: str, times: int = 1) -> list[str]:
    """The lines of a log file, as soon as so many match ``until``."""
    file = server.directory / "logs" / f"{name}.log"
    deadline = time.monotonic() + 15
    while True:
        lines = file.read_text().splitlines()
        if sum(bool(re.fullmatch(f"{STAMP} - {until}", line)) for line in lines) >= times:
            return lines
        assert time.monotonic() < deadline, (until, lines)
        time.sleep(0.1)


def test_the_usual_metrics_have_torchserves_types_units_and_labels(usual: DropIn) -> None:
    lines = scrape(usual, until=f"DiskAvailable{OF_HOST} {NUMBER}")
    found = {}
    for name in [line.split()[2] for line in lines if line.startswith("# HELP")]:
        kind = next(line.split()[3] for line in lines if line.startswith(f"# TYPE {name} "))
        text = next(line for line in lines if line.startswith(f"# HELP {name} "))
        unit = re.fullmatch(rf"# HELP {name} Torchserve prometheus {kind} metric with unit: (.*)", text)
        samples = [re.fullmatch(rf"{name}{{(.*),}} {NUMBER}", line) for line in lines if line.startswith(f"{name}{{")]
        labels = {tuple(re.findall(r'(\w+)="[^"]*"', sample[1])) for sample in samples if sample}
        assert unit is not None, text
        assert all(samples), lines
        found[name] = (kind, unit[1], labels.pop() if labels else ())
        assert not labels
    assert found == USUAL


@pytest.mark.parametrize(
    "pattern",
    [
        rf"Requests2XX{OF_HOST} [1-9]\d*\.0",
        rf"Requests4XX{OF_HOST} 1\.0",
        rf"Requests5XX{OF_HOST} 2\.0",
        r'ts_inference_requests_total{model_name="timed",model_version="default",hostname=".+",} 2\.0',
        r'ts_inference_requests_total{model_name="timed",model_version="1.0",hostname=".+",} 1\.0',
        r'ts_inference_requests_total{model_name="raising",model_version="default",hostname=".+",} 1\.0',
        r'ts_inference_requests_total{model_name="over_grpc",model_version="default",hostname=".+",} 1\.0',
        r'ts_inference_requests_total{model_name="noop",model_version="default",hostname=".+",} 1\.0',
        rf'ts_inference_latency_microseconds{{model_name="timed",model_version="default",hostname=".+",}} {NUMBER}',
        rf'ts_queue_latency_microseconds{{model_name="timed",model_version="1.0",hostname=".+",}} {NUMBER}',
        rf"QueueTime{OF_HOST} {NUMBER}",
        rf"WorkerThreadTime{OF_HOST} {NUMBER}",
        rf'WorkerLoadTime{{WorkerName="W-9000-timed_1.0",Level="Host",Hostname=".+",}} {NUMBER}',
        rf'HandlerTime{{ModelName="timed",Level="Model",Hostname=".+",}} {NUMBER}',
        rf"CPUUtilization{OF_HOST} {NUMBER}",
        rf"MemoryUsed{OF_HOST} {NUMBER}",
        rf"DiskUtilization{OF_HOST} {NUMBER}",
    ],
)
def test_what_a_dashboard_shows_is_there_once(usual: DropIn, pattern: str) -> None:
    lines = scrape(usual, "?" + "&".join(f"name[]={name}" for name in USUAL), until=pattern)
    assert len([line for line in lines if re.fullmatch(pattern, line)]) == 1


def test_a_request_over_grpc_has_a_latency(usual: DropIn, differs: Callable[[str], None]) -> None:
    differs("grpc-latency")
    pattern = rf'ts_inference_latency_microseconds{{model_name="over_grpc",.*}} {NUMBER}'
    assert scrape(usual, until=pattern)


@pytest.mark.parametrize(
    "sample",
    [
        rf"Loads{OF_MODEL} 1.0",
        rf"Loads{OF_MODEL.replace('counting', 'failing')} 1.0",  # reported before the load failed
        rf'Seen{{Kind="x",{OF_MODEL[1:]} 2.0',
        rf"Took{OF_MODEL} 3.5",
        rf"Big{OF_MODEL} 2.0",
        rf"Share{OF_MODEL} 50.0",
        r'Bad{Level="Error",Hostname="[^"]+",} 4.0',
        rf'Other{{Kind="y",{OF_MODEL[1:]} 7.0',
        r'Declared{Which="q",Hostname="[^"]+",} 4.0',
        r'Sizes_bucket{ModelName="counting",Hostname="[^"]+",le="0.25",} 0.0',
        r'Sizes_bucket{ModelName="counting",Hostname="[^"]+",le="10.0",} 2.0',
        r'Sizes_bucket{ModelName="counting",Hostname="[^"]+",le="\+Inf",} 4.0',
        r'Sizes_count{ModelName="counting",Hostname="[^"]+",} 4.0',
        r'Sizes_sum{ModelName="counting",Hostname="[^"]+",} 1400.6',
    ],
)
def test_a_handlers_metric_is_shown_as_it_was_declared(declared: Callable[[str], DropIn], sample: str) -> None:
    lines = scrape(declared("prometheus"), until=sample)
    assert len([line for line in lines if re.fullmatch(sample, line)]) == 1
    assert not any("Undeclared" in line or "Requests4XX" in line for line in lines)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?name[]=Seen&name[]=Took", ["Seen", "Took"]),
        ("?name%5B%5D=Requests2XX", ["Requests2XX"]),
        ("?name[]=Sizes_count", ["Sizes"]),
        ("?name[]=Sizes", []),  # of a histogram there are only samples of other names
        ("?name[]=nothing", []),
        ("/whatever?name[]=Took", ["Took"]),
    ],
)
def test_a_scrape_is_narrowed_by_name(declared: Callable[[str], DropIn], query: str, names: list[str]) -> None:
    server = declared("prometheus")
    scrape(server, until=rf"Took{OF_MODEL} 3.5")
    lines = scrape(server, query)
    assert sorted(line.split()[2] for line in lines if line.startswith("# HELP")) == names
    assert len([line for line in lines if not line.startswith("#")]) == len(names)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_a_scrape_is_answered_whatever_its_method(declared: Callable[[str], DropIn], method: str) -> None:
    reply = declared("prometheus").ask(method, "/metrics?name[]=Requests2XX", api="metrics")
    assert (reply.status, b"# TYPE Requests2XX counter\n" in reply.body) == (200, True)


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [("GET", "/", 405, "MethodNotAllowed"), ("GET", "/models", 404, "ResourceNotFound")],
)
def test_the_metrics_port_has_metrics_only(
    declared: Callable[[str], DropIn], method: str, path: str, status: int, name: str
) -> None:
    reply = declared("prometheus").ask(method, path, api="metrics")
    assert (reply.status, reply.error()[:2]) == (status, (status, f"{name}Exception"))


@pytest.mark.parametrize("mode", ["log", "legacy"])
def test_what_is_not_scraped_is_a_line_in_torchserves_files(declared: Callable[[str], DropIn], mode: str) -> None:
    server = declared(mode)
    last = r"Declared.unit:4.0\|#Which:q\|#hostname:[^,]+,requestID:null,timestamp:\d+"
    lines_of(server, "model_metrics", r"Bad.unit:2.0\|#Level:Error\|.*", 2)  # which come in any order
    text = "\n".join(lines_of(server, "model_metrics", last, 2))
    for pattern, count in {
        rf"Loads.count:1.0\|#ModelName:counting,Level:Model\|#hostname:[^,]+,requestID:{UUID},timestamp:\d+": 1,
        rf"Loads.count:1.0\|#ModelName:failing,Level:Model\|#hostname:[^,]+,requestID:{UUID},timestamp:\d+": 1,
        rf"Seen.count:1.0\|#Kind:x,ModelName:counting,Level:Model\|#hostname:[^,]+,requestID:{UUID},timestamp:\d+": 2,
        rf"Big.kB:2.0\|#ModelName:counting,Level:Model\|#hostname:[^,]+,requestID:{UUID},timestamp:\d+": 2,
        r"Bad.unit:2.0\|#Level:Error\|#hostname:[^,]+,requestID:null,timestamp:\d+": 2,
        r"Sizes.count:700.0\|#ModelName:counting\|#hostname:[^,]+,requestID:null,timestamp:\d+": 2,
        last: 2,
    }.items():
        assert len(re.findall(f"^{STAMP} - {pattern}$", text, re.MULTILINE)) == count, (pattern, text)
    assert text.count("Undeclared.Count:1.0|#ModelName:counting,Level:Model|#") == (2 if mode == "legacy" else 0)
    tail = r"\|#hostname:[^,]+,timestamp:\d+"
    for pattern in (rf"MemoryUsed.Megabytes:{NUMBER}\|#Level:Host{tail}", rf"Requests2XX.Count:1.0\|#Level:Host{tail}"):
        lines_of(server, "ts_metrics", pattern)
    load = rf"WorkerLoadTime.Milliseconds:{NUMBER}\|#WorkerName:W-9000-counting_1.0,Level:Host{tail}"
    total = r"ts_inference_requests_total.Count:1.0\|#model_name:counting,model_version:default" + tail
    text = "\n".join(lines_of(server, "ts_metrics", load))
    assert len(re.findall(f"^{STAMP} - {total}$", text, re.MULTILINE)) == (1 if mode == "log" else 0)


def test_log_mode_scrapes_nothing(declared: Callable[[str], DropIn]) -> None:
    assert scrape(declared("log")) == []


def test_legacy_mode_scrapes_the_three_counters(declared: Callable[[str], DropIn]) -> None:
    total = r'ts_inference_requests_total{model_name="counting",model_version="(default|1.0)",hostname=".+",} 1.0'
    lines = scrape(declared("legacy"), until=total)
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert sorted(names) == ["ts_inference_requests_total", "ts_queue_latency_microseconds"]  # those of three declared
    assert len([line for line in lines if re.fullmatch(total, line)]) == 2
