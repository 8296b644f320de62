"""Prometheus text in TorchServe's style: what its users' patterns match, and what Prometheus itself can read."""

import asyncio
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mlserve.core.intake import Intake
from mlserve.core.metrics import ModelStats
from mlserve.core.model import ModelKey
from mlserve.protocols.metrics_config import Declared, read_metrics_config
from mlserve.protocols.ts_metrics import Family, TorchServeMetrics
from mlserve.rest.exposition import CONTENT_TYPE, Shown, number, torchserve_families, write
from mlserve.rest.metrics import build_metrics_app
from mlserve.settings import Settings


def family(kind="counter", name="N", labels=("A", "Hostname"), unit="Count"):
    return Family(Declared(name, unit, kind, labels), True)


def text_of(*families, names=()):
    return write(torchserve_families(families), names).decode()


def test_text_is_not_what_torchserve_writes():
    counter, gauge, histogram = family(), family("gauge", "G", ("Hostname",)), family("histogram", "H", ("B",), "ms")
    counter.update(("x", "h"), 2)
    counter.update(("x", "h"), 3)
    histogram.update(("b",), 7)
    lines = text_of(counter, gauge, histogram).splitlines()
    assert lines[:5] == [
        "# HELP N Torchserve prometheus counter metric with unit: Count",
        "# TYPE N counter",
        'N{A="x",Hostname="h",} 5.0',
        "# HELP G Torchserve prometheus gauge metric with unit: Count",
        "# TYPE G gauge",
    ]
    assert lines[5:8] == [
        "# HELP H Torchserve prometheus histogram metric with unit: ms",
        "# TYPE H histogram",
        'H_bucket{B="b",le="0.005",} 0.0',
    ]
    bounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
    assert re.findall('le="(.+)"', "\n".join(lines)) == [*map(str, bounds), "+Inf"]
    assert lines[-4:] == [
        'H_bucket{B="b",le="10.0",} 1.0',
        'H_bucket{B="b",le="+Inf",} 1.0',
        'H_count{B="b",} 1.0',
        'H_sum{B="b",} 7.0',
    ]


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["N"], ["N"]),
        (["H"], []),
        (["H_sum", "nope"], ["H_sum"]),
        (["G"], []),
        ([], ["N", "G", "H"]),
    ],
)
def test_filter_lets_the_wrong_samples_through(names, left):
    counter, gauge, histogram = family(), family("gauge", "G"), family("histogram", "H")
    counter.update(("x", "h"), 1)
    histogram.update(("x", "h"), 1)
    text = text_of(counter, gauge, histogram, names=names)
    if names:
        assert re.findall(r"^(\w+){", text, re.MULTILINE) == left
    else:
        assert re.findall("^# TYPE (.) ", text, re.MULTILINE) == left


def test_label_or_name_of_a_handler_breaks_the_text():
    odd = family("gauge", "2 odd-name", ("a b", "Hostname"), "u\nnit")
    odd.update(('q"\\\n', "h"), 1.5)
    twin = family("gauge", "2 odd name", ("a",))
    twin.update(("x",), 1)
    [parsed] = parse_text(text_of(odd, twin))
    assert [(sample.name, sample.labels, sample.value) for sample in parsed.samples] == [
        ("_2_odd_name", {"a_b": 'q"\\\n', "Hostname": "h"}, 1.5)
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(5, "5.0"), (0.1, "0.1"), (1e8, "100000000.0"), (float("inf"), "+Inf"), (float("nan"), "NaN"), (-1.5, "-1.5")],
)
def test_number_has_no_decimal_point(value, text):
    assert number(value) == text
    assert write([Shown("n", "gauge", "t", [("n", (), value)])]).decode().endswith(f"n {text}\n")


def get(path="/metrics", method="GET", **settings):
    stats = ModelStats()
    stats.custom.add("HandlerTime", 5.0, "ms")
    handle = SimpleNamespace(
        spec=SimpleNamespace(key=ModelKey("m", "1.0")),
        stats=stats,
        queue=SimpleNamespace(depth=0),
        pool=SimpleNamespace(describe=list, restarts={}),
    )
    chosen = replace(Settings().metrics, **{"families": "torchserve", "system": False, **settings})
    metrics = TorchServeMetrics(
        read_metrics_config(), mode=chosen.mode, hostname="h", write=lambda text, of_model: None
    )
    metrics.http_answer(200)
    health = SimpleNamespace(ready=True)
    service = SimpleNamespace(
        versions=lambda: [handle], health=lambda: health, observer=metrics, spares=list, intake=Intake()
    )

    async def run():
        app = build_metrics_app(service, replace(Settings(), metrics=chosen))
        async with TestClient(TestServer(app)) as client, client.request(method, path) as response:
            return response.status, response.headers["Content-Type"], await response.text()

    return asyncio.run(run())


@pytest.mark.parametrize(("method", "path"), [("GET", "/metrics"), ("PUT", "/metrics/a/b"), ("DELETE", "/metrics")])
def test_method_or_suffix_matters(method, path):
    status, content_type, text = get(path, method)
    assert (status, content_type) == (200, CONTENT_TYPE)
    assert 'Requests2XX{Level="Host",Hostname="h",} 1.0\n' in text
    assert "mlserve_" not in text


def test_openmetrics_is_sent_where_torchserve_knows_none():
    assert get()[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_log_mode_shows_numbers():
    assert get(mode="log", families="both") == (200, CONTENT_TYPE, "")


def test_legacy_mode_shows_more_than_three_counters():
    text = get(mode="legacy", families="both", system=True)[2]
    assert re.findall("# TYPE (.+) (.+)", text) == [
        ("ts_inference_requests_total", "counter"),
        ("ts_inference_latency_microseconds", "counter"),
        ("ts_queue_latency_microseconds", "counter"),
    ]


def test_machine_is_missing_or_its_names_are_not_torchserves():
    text = get(system=True)[2]
    for name in ("CPUUtilization", "MemoryUsed", "MemoryUtilization", "DiskUsage", "DiskUtilization", "DiskAvailable"):
        assert re.search(rf'^{name}{{Level="Host",Hostname="h",}} \d+\.\d+$', text, re.MULTILINE), name


def test_both_families_make_a_text_that_prometheus_refuses():
    text = get(families="both", system=True)[2]
    names = [one.name for one in parse_text(text)]
    assert len(names) == len(set(names)) == text.count("# TYPE ")
    assert {"Requests2XX", "mlserve_requests", "process_open_fds"} <= set(names)
    assert 'mlserve_requests_total{model="m",version="1.0",status="ok",} 0.0\n' in text
    assert text.count("# TYPE HandlerTime gauge\n") == 1
    assert "\nHandlerTime{" not in text, "what handlers report is shown in TorchServe's way only"


def test_metric_without_declared_labels_is_lost():
    bare = family("counter", "B", ())
    bare.update((), 1)
    assert text_of(bare).endswith("\nB 1.0\n")
