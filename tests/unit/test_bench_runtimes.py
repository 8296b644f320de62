"""What ``scripts/bench runtimes`` makes of its rounds: shares of the same round, and which settings a column has."""

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("numpy")
sys.path.append(str(Path(__file__).resolve().parents[2]))  # the benchmarks are not installed
from benchmarks import runtimes_models, runtimes_report
from benchmarks.runtimes import Contender
from benchmarks.runtimes_models import Case
from benchmarks.runtimes_report import Result, Series

THREADS = "handlerThreads: 2\nbatchPolicy: adaptive"


def case(folder, runtime, recommended=""):
    return Case("minilm", runtime, folder / f"minilm-{runtime}" / "net.onnx", folder / "ids", "text/plain", recommended)


@pytest.fixture
def results(tmp_path):
    series = Series([100.0, 50.0], 10.0), Series([90.0, 48.0], 11.0, 7.5), Series([120.0, 55.0], 9.0, 2.0)
    other = Series([100.0, 50.0], 10.0), Series([99.0, 49.0], 10.2, 7.8)
    return [
        Result(case(tmp_path, "onnx", THREADS), "onnxruntime 1", *series, stolen=[0.0, 0.1]),
        Result(case(tmp_path, "openvino"), "openvino 1", *other, stolen=[0.0, 0.0]),
    ]


def test_a_share_is_of_what_the_loop_did_in_the_same_round(results):
    assert results[0].served.shares(results[0].loop) == [0.9, 0.96]
    assert results[0].best.shares(results[0].loop) == [1.2, 1.1]
    assert results[1].best is results[1].served, "the loop's settings are the recommended ones"


def test_a_round_that_lacks_a_figure_is_no_share():
    with pytest.raises(ValueError, match="zip"):
        Series([1.0, 2.0]).shares(Series([1.0]))


def test_each_column_is_said_to_be_what_it_is(results):
    text = runtimes_report.markdown(results, "scripts/bench runtimes", 2, 1.5, 3.0)
    onnx, openvino = (line.split(" | ") for line in text.splitlines() if line.startswith("| MiniLM"))
    assert onnx[2:8] == [
        "75.0",
        "69.0, batch 7.50",
        "0.930 (0.900–0.960)",
        "87.5, batch 2.00",
        "1.150 (1.100–1.200)",
        "10.00, 11.00, 9.00",
    ]
    assert openvino[5:8] == ["the same", "the same", "10.00, 10.20"]
    assert "`handlerThreads: 2, batchPolicy: adaptive` for minilm-onnx. Those of the loop for minilm-openvino." in text
    assert text.count("Below 0.95: minilm-onnx.") == 1
    assert text.count("Below 0.95: none.") == 1
    assert "2 interleaved rounds of 1.5 s" in text


def test_the_file_for_programs_has_every_round_of_every_column(results, tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes_report, "RESULTS", tmp_path / "results")
    assert runtimes_report.write(results, "text").read_text() == "text"
    onnx, openvino = json.loads((tmp_path / "results" / "runtimes.json").read_text())["rows"]
    assert onnx["recommended"] == {"rates": [120.0, 55.0], "shares": [1.2, 1.1], "mean_batch": 2.0, "cpu_ms": 9.0}
    assert onnx["settings"] == THREADS
    assert openvino["recommended"] is None


def test_the_recommended_server_has_its_own_settings_and_leaves_the_loop_s_alone(tmp_path):
    given = case(tmp_path, "onnx", THREADS)
    given.path.parent.mkdir()
    given.path.write_text("model")
    config = given.path.with_name("model-config.yaml")
    config.write_text("batchSize: 8\nbatchPolicy: eager\n")
    for _ in range(2):  # a second run finds the folder there
        twin = runtimes_models.twin(given)
    assert config.read_text() == "batchSize: 8\nbatchPolicy: eager\n"
    assert twin.path.samefile(given.path)
    assert twin.path.parent != given.path.parent
    settings = yaml.safe_load(twin.path.with_name("model-config.yaml").read_text())
    assert settings == {"batchSize": 8, "handlerThreads": 2, "batchPolicy": "adaptive"}


def test_the_mean_batch_is_that_of_the_measured_turns():
    counts = iter([(10.0, 10.0), (90.0, 20.0)])
    one = Contender(lambda seconds: 40.0 * seconds, os.getpid(), lambda: next(counts))
    one.turn(0.5)
    assert one.end().batch == 8.0
    assert one.series.rates == [20.0]
