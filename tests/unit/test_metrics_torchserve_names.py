"""Events become TorchServe's metrics: names, labels, lines, and what metrics.config has to say about them."""

import re
from types import SimpleNamespace

import pytest

from mlserve.core.messages import BatchReport, InferenceRequest, InferenceResponse
from mlserve.core.metrics import HttpCounts
from mlserve.core.model import ModelKey
from mlserve.errors import ErrorKind, ServeError
from mlserve.protocols.metrics_config import Declared, MetricsConfig, read_metrics_config
from mlserve.protocols.ts_metrics import EXACT, OF_ERROR, OF_MODEL, TorchServeMetrics, line
from mlserve.wire.payload import MetricRecord

SPEC = SimpleNamespace(key=ModelKey("m", "2.0"), continuous_batching=True)
OK = InferenceResponse(b"")


class Rig:
    """Metrics on host ``h`` at second 7, with the lines that they wrote."""

    def __init__(self, config=None, **options):
        self.server_lines, self.model_lines = [], []
        self.flushed = 0
        self.metrics = TorchServeMetrics(
            config or read_metrics_config(),
            hostname="h",
            write=lambda text, of_model: (self.model_lines if of_model else self.server_lines).append(text),
            flush=self._flush,
            clock=lambda: 7.9,
            **options,
        )

    def _flush(self):
        self.flushed += 1

    def batch(self, *records, results=(OK,), transfer=0.0):
        jobs = [SimpleNamespace(request=SimpleNamespace(request_id=f"id{n}")) for n in range(len(results))]
        report = BatchReport(transfer, metrics=records)
        self.metrics.computed(SPEC, SimpleNamespace(jobs=jobs), results, report)

    def answered(self, result, version="", queued=0.001, total=0.0025):
        request = InferenceRequest("r", [], version=version)
        job = SimpleNamespace(result=result, request=request, queue=SimpleNamespace(spec=SPEC))
        self.metrics.answered(job, queued, total)

    def values(self):
        return {
            (family.declared.name, *labels): value
            for family in self.metrics.families()
            for labels, value in family.values.items()
        }


def test_version_label_is_not_what_the_client_named():
    rig = Rig()
    for version in ("", "", "1.0"):
        rig.metrics.asked(SPEC, InferenceRequest("r", [], version=version))
    rig.answered(InferenceResponse(b"", status=507), "1.0")
    rig.answered(InferenceResponse(b""))
    rig.answered(ServeError("no"))
    assert rig.values() == {
        ("ts_inference_requests_total", "m", "default", "h"): 2.0,
        ("ts_inference_requests_total", "m", "1.0", "h"): 1.0,
        ("ts_inference_latency_microseconds", "m", "default", "h"): 2500.0,
        ("ts_inference_latency_microseconds", "m", "1.0", "h"): 2500.0,
        ("ts_queue_latency_microseconds", "m", "default", "h"): 1000.0,
        ("ts_queue_latency_microseconds", "m", "1.0", "h"): 1000.0,
        ("QueueTime", "Host", "h"): 1.0,
    }


def test_worker_and_http_events_are_not_counted():
    rig = Rig()
    counts = HttpCounts()
    counts.on_answer = rig.metrics.http_answer
    for status in (200, 204, 302, 404, 507):
        counts.count(status)
    rig.metrics.loaded(SPEC, 9000, 0.25, [])
    rig.batch(transfer=0.0012)
    assert rig.values() == {
        ("Requests2XX", "Host", "h"): 2.0,
        ("Requests4XX", "Host", "h"): 1.0,
        ("Requests5XX", "Host", "h"): 1.0,
        ("WorkerLoadTime", "W-9000-m_2.0", "Host", "h"): 250.0,
        ("WorkerThreadTime", "Host", "h"): 1.2,
    }


def test_lines_differ_from_those_that_log_readers_parse():
    rig = Rig(mode="log", auto_detect=True)
    rig.metrics.asked(SPEC, InferenceRequest("r", [], version=""))
    rig.metrics.loaded(SPEC, 9000, 0.25, [MetricRecord("InitCount", 1.0, "Count", "counter", origin=OF_MODEL)])
    assert rig.server_lines == [
        "ts_inference_requests_total.Count:1.0|#model_name:m,model_version:default|#hostname:h,timestamp:7",
        "WorkerLoadTime.Milliseconds:250.0|#WorkerName:W-9000-m_2.0,Level:Host|#hostname:h,timestamp:7",
    ]
    [loaded] = rig.model_lines
    pattern = r"InitCount.Count:1.0\|#ModelName:m,Level:Model\|#hostname:h,requestID:[0-9a-f-]{36},timestamp:7"
    assert re.fullmatch(pattern, loaded)
    rig.model_lines.clear()
    rig.batch(
        MetricRecord("HandlerTime", 1.5, "Milliseconds", "gauge", origin=OF_MODEL),
        MetricRecord("T", 12.5, "Milliseconds", "gauge", [("MethodName", "pre")], 0, "id0", OF_MODEL),
        MetricRecord("Err", 2.0, "unit", "counter", origin=OF_ERROR),
        MetricRecord("NoDims", 1.0, "Count", "counter", origin=EXACT),
        MetricRecord("Hist", 7.0, "Milliseconds", "histogram", [("A", "q\nx")], -1, "rid", EXACT),
        results=(InferenceResponse(b""), InferenceResponse(b"")),
    )
    assert rig.model_lines == [
        "HandlerTime.ms:1.5|#ModelName:m,Level:Model|#hostname:h,requestID:id0,id1,timestamp:7",
        "T.Milliseconds:12.5|#MethodName:pre,ModelName:m,Level:Model|#hostname:h,requestID:id0,timestamp:7",
        "Err.unit:2.0|#Level:Error|#hostname:h,requestID:null,timestamp:7",
        "NoDims.Count:1.0|#|#hostname:h,requestID:null,timestamp:7",
        "Hist.Milliseconds:7.0|#A:q\\nx|#hostname:h,requestID:rid,timestamp:7",
    ]
    assert rig.flushed == 1
    assert rig.metrics.families() == []


def test_legacy_shows_prometheus_more_or_less_than_three_counters():
    rig = Rig(mode="legacy")
    rig.metrics.asked(SPEC, InferenceRequest("r", []))
    rig.answered(InferenceResponse(b""))
    rig.metrics.http_answer(200)
    names = {family.declared.name for family in rig.metrics.families()}
    assert names == {
        "ts_inference_requests_total",
        "ts_inference_latency_microseconds",
        "ts_queue_latency_microseconds",
    }
    assert [text.partition(".")[0] for text in rig.server_lines] == ["QueueTime", "Requests2XX"]


def test_undeclared_metric_is_kept_though_nobody_asked():
    record = MetricRecord("Mine", 1.0, "Count", "counter", origin=OF_MODEL)
    kept, dropped = Rig(auto_detect=True), Rig()
    for rig in (kept, dropped):
        rig.batch(record)
        rig.batch(record)
    assert kept.values()["Mine", "m", "Model", "h"] == 2.0
    assert not any(key[0] == "Mine" for key in dropped.values())


def test_declared_type_unit_and_dimensions_lose_against_the_handler():
    declared = Declared("Mine", "CallCount", "counter", ("Name", "Place", "Hostname"))
    config = MetricsConfig({}, {"Mine": declared})
    for mode in ("prometheus", "log"):
        rig = Rig(config, mode=mode)
        for _ in range(2):
            rig.batch(MetricRecord("Mine", 2.0, "Milliseconds", "gauge", origin=OF_MODEL))
        if mode == "log":
            assert rig.model_lines[0].startswith("Mine.CallCount:2.0|#Name:m,Place:Model|#hostname:h,")
        else:
            assert rig.values() == {("Mine", "m", "Model", "h"): 4.0}


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([MetricRecord("HandlerTime", 1.0, "ms", "gauge", [("a", "b")], origin=OF_MODEL)], "got 4 values"),
        ([MetricRecord("Down", -1.0, "Count", "counter", [], origin=EXACT)], "a counter only rises"),
        ([MetricRecord("Many", 1.0, "Count", "counter", [("n", str(n))]) for n in range(1001)], "1000 series"),
    ],
)
def test_report_that_cannot_be_kept_is_said_more_than_once(records, said, caplog):
    rig = Rig(auto_detect=True)
    rig.batch(*records)
    rig.batch(*records)
    assert [record.message for record in caplog.records if said in record.message] != []
    assert len(caplog.records) == 1


def test_client_of_a_continuous_batch_goes_unnoticed(caplog):
    caplog.set_level("INFO", "org.pytorch.serve")
    rig = Rig()
    rig.answered(ServeError("gone", kind=ErrorKind.CANCELLED))
    rig.answered(ServeError("late", kind=ErrorKind.TIMEOUT))
    assert [record.message for record in caplog.records] == ["Connection to client got closed; Removing job: r"]


def test_line_is_not_of_the_form_that_is_documented():
    declared = Declared("TestMetric", "ms", "gauge", ("ModelName", "Level", "Hostname"))
    labels = ("TestModel", "Model", "TestHost")
    assert line(declared, labels, 1, 5.0, None) == (
        "TestMetric.ms:1.0|#ModelName:TestModel,Level:Model|#hostname:TestHost,timestamp:5"
    )
    assert line(declared, labels, 1, 5.0, "id") == (
        "TestMetric.ms:1.0|#ModelName:TestModel,Level:Model|#hostname:TestHost,requestID:id,timestamp:5"
    )
