"""What the log says of workers under ``log.format = torchserve``: the texts that scripts look for, in their order."""

import logging

import pytest

from mlserve.core.lifecycle import WorkerState
from mlserve.core.model import ModelKey
from mlserve.engine.local.exits import Ending
from mlserve.engine.local.logs import WorkerLog
from mlserve.engine.local.reports import PlainReport, TorchServeReport, report_for
from mlserve.wire.payload import Hello, LogRecordMeta

KEY = ModelKey("m", "1.0")
UNANSWERED = (
    "Backend worker error\norg.pytorch.serve.wlm.WorkerInitializationException: Backend worker did not respond "
)


@pytest.fixture
def said(caplog):
    """What was logged since the last call, without the times in it."""
    caplog.set_level("INFO")

    def take():
        texts = [(record.levelname, record.message) for record in caplog.records]
        caplog.clear()
        return texts

    return take


def test_restart_of_a_worker_is_not_found_by_scripts(said):
    report = TorchServeReport(KEY, 9000)
    report.loaded()
    assert said() == [], "nothing was to be recovered from"
    ending = Ending("response_timeout", "did not answer in time")
    report.died(ending, WorkerState.READY)
    report.retry(ending, 1.0)
    assert [text.rstrip("0123456789") for _, text in said()] == [
        "Number or consecutive unsuccessful inference ",
        UNANSWERED + "in given time",
        "9000 Worker disconnected. WORKER_MODEL_LOADED",
        "worker 9000 of model m:1.0 did not answer in time",
        "Auto recovery start timestamp: ",
        "Retry worker: 9000 in 1 seconds.",
    ]
    report.died(ending, WorkerState.LOADING)
    texts = [text for _, text in said()]
    assert texts[0] == "Number or consecutive unsuccessful inference 2"
    assert "9000 Worker disconnected. WORKER_STARTED" in texts
    assert texts[-1] == "Auto recovery failed again"
    report.loaded()
    assert said() == [("INFO", "Auto recovery succeeded, reset recoveryStartTS")]


def test_failure_to_load_is_told_before_its_traceback(said):
    report = TorchServeReport(KEY, 9000)
    report.died(Ending("load_failed", "could not load the model: AssertionError", "Traceback"), WorkerState.LOADING)
    texts = said()
    assert ("WARNING", "Load model failed: m, error: Worker died.") in texts
    assert not any("AssertionError" in text for _, text in texts)


def test_lines_have_no_thread(caplog):
    caplog.set_level("INFO")
    TorchServeReport(KEY, 9000).died(Ending("killed", "was killed"), WorkerState.READY)
    assert {record.ts_thread for record in caplog.records} == {"W-9000-m_1.0"}


def test_own_format_has_torchserves_lines(said):
    assert report_for("text") is report_for("json") is PlainReport
    assert report_for("torchserve") is TorchServeReport
    report = PlainReport(KEY, 9000)
    ending = Ending("killed", "was killed")
    report.started(Hello(1, "3.11", 1), WorkerLog("m:1.0", 9000))
    report.died(ending, WorkerState.READY)
    report.retry(ending, 2.0)
    report.loaded()
    assert said() == [("WARNING", "worker 9000 of model m:1.0 was killed; next try in 2 s")]


def test_start_marker_is_not_a_line_of_the_worker(said):
    lines = WorkerLog("m:1.0", 9000)
    TorchServeReport(KEY, 9000).started(Hello(77, "3.11.7", 1), lines)
    assert list(lines.tail) == ["[PID]77", "Torch worker started.", "Python runtime: 3.11.7"]
    assert ("INFO", "m:1.0 9000 | [PID]77") in said()


def test_source_of_a_record_is_lost_or_stands_in_the_model_log(caplog):
    caplog.set_level("INFO")
    lines = WorkerLog("m:1.0", 9000)
    lines.record(LogRecordMeta(logging.ERROR, "lib", "one\ntwo", 0.0))
    assert [record.message for record in caplog.records] == ["m:1.0 9000 | lib: one", "m:1.0 9000 | lib: two"]
    assert [record.args[2] for record in caplog.records] == ["one", "two"]
    assert list(lines.tail) == ["lib: one", "lib: two"]
