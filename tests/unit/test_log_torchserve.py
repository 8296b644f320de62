"""TorchServe's log files and console: every file there from the start, lines in its form, nobody held up."""

import gzip
import logging
import os
import re
import time

import pytest

from mlserve.log import LOGGERS, THREAD, close_logs, open_access_log, open_logs, setup_logging
from mlserve.log.formats import local_stamp
from mlserve.log.rolling import RollingFile
from mlserve.log.writer import LineWriter
from mlserve.settings import LogSettings

NAMES = ["access_log.log", "model_log.log", "model_metrics.log", "ts_log.log", "ts_metrics.log"]
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"


@pytest.fixture
def logs(tmp_path):
    """Set up with these settings; the loggers are as before afterwards."""
    state = {name: (list(logging.getLogger(name).handlers), logging.getLogger(name).level) for name in LOGGERS}

    def start(**settings):
        chosen = LogSettings(**{"directory": str(tmp_path / "a" / "logs"), "format": "torchserve", **settings})
        setup_logging(chosen)
        return chosen

    yield start
    close_logs()
    for name, (handlers, level) in state.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, True
        logger.setLevel(level)


def lines_of(tmp_path, name):
    return (tmp_path / "a" / "logs" / f"{name}.log").read_text().splitlines()


def test_file_is_missing_right_after_the_start(tmp_path, logs):
    logs()
    assert sorted(path.name for path in (tmp_path / "a" / "logs").iterdir()) == NAMES


@pytest.mark.parametrize(("form", "mode"), [("text", 0o640), ("json", 0o640), ("torchserve", 0o644)])
def test_everybody_reads_the_log_or_log_shippers_cannot(tmp_path, logs, form, mode):
    before = os.umask(0o022)
    try:
        logs(format=form)
        own = tmp_path / "a" / "logs"
        assert {path.name: path.stat().st_mode & 0o777 for path in own.iterdir()} == dict.fromkeys(NAMES, mode)
    finally:
        os.umask(before)


def test_metrics_files_are_not_in_their_own_directory(tmp_path, logs):
    logs(metrics_directory=str(tmp_path / "m"))
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["model_metrics.log", "ts_metrics.log"]
    assert len(list((tmp_path / "a" / "logs").iterdir())) == 3


def test_directory_that_cannot_be_made_stops_the_server(tmp_path, logs, capfd):
    (tmp_path / "a").write_text("a file")
    settings = logs(metrics_directory=str(tmp_path / "m"))
    open_access_log(settings).line("c:1", "GET", "/ping", 200, 2, 0.0, "r")
    open_logs().metric("a metric")
    close_logs()
    shown = capfd.readouterr().out
    assert "[WARN ]" in shown
    assert "log.directory: these files cannot be written" in shown
    assert "access_log.log: Not a directory" in shown
    assert "ACCESS_LOG - /c:1" in shown
    assert (tmp_path / "m" / "ts_metrics.log").read_text().endswith("- a metric\n")


def test_line_is_not_where_and_how_torchserve_writes_it(tmp_path, logs, capfd):
    logs(level="debug")
    logging.getLogger("mlserve.server").debug("one %s", 1)
    logging.getLogger("org.pytorch.serve.X").error("two\nlines", extra={THREAD: "W-9000-m_1.0"})
    worker = {"model": "m:1.0", "worker": 9000}
    logging.getLogger("mlserve.worker").info("%s | %s%s", "m:1.0 9000", "lib: ", "text", extra=worker)
    logging.getLogger("mlserve.worker").warning(
        "%s | %s%s", "m:1.0 9000", "", "bad", extra={**worker, "stream": "stderr"}
    )
    close_logs()
    expected = [
        "[DEBUG] main mlserve.server - one 1",
        "[ERROR] W-9000-m_1.0 org.pytorch.serve.X - two",
        "lines",
        "[INFO ] W-9000-m_1.0-stdout MODEL_LOG - text",
        "[WARN ] W-9000-m_1.0-stderr MODEL_LOG - bad",
    ]
    for shown in (lines_of(tmp_path, "ts_log"), capfd.readouterr().out.splitlines()):
        assert [re.sub(f"^{STAMP} ", "", text) for text in shown] == expected
    assert [text.split(" - ")[1] for text in lines_of(tmp_path, "model_log")] == ["text", "bad"]


@pytest.mark.parametrize("telemetry", ["", "/opt/ml/telemetry"])
def test_failure_of_the_server_is_not_counted_where_sagemaker_looks(tmp_path, logs, telemetry):
    logs(telemetry=telemetry)
    for name in ("mlserve.engine.local.supervisor", "mlserve.rest.exchange"):
        try:
            raise MemoryError("no more")
        except MemoryError:
            logging.getLogger(name).exception("failed")
    logging.getLogger("mlserve.engine.local.supervisor").error("a worker died")
    close_logs()
    found = [line[24:] for line in lines_of(tmp_path, "ts_log") if "TELEMETRY" in line]
    line = "[INFO ] main TELEMETRY_METRICS - ModelServerError.Count:1|#TorchServe:0.12.0,builtins.MemoryError:-1"
    assert found == ([line] if telemetry else [])


def test_access_line_is_not_torchserves(tmp_path, logs, capfd):
    access = open_access_log(logs())
    assert access.every_api
    access.line("127.0.0.1:50910", "GET", "/v2/models/a b", 400, 9, 0.0039, "r")
    access.line("127.0.0.1:7", "gRPC", "org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping", 0, 0, 0.0, "r")
    access.line("unix", "GET", "/ping", 200, 9, 0.0, "r")
    access.close()
    close_logs()
    own = lines_of(tmp_path, "access_log")
    assert all(re.match(f"{STAMP} - ", text) for text in own)
    assert [text.split(" - ", 1)[1] for text in own] == [
        '/127.0.0.1:50910 "GET /v2/models/a\\x20b HTTP/1.1" 400 3',
        '/127.0.0.1:7 "gRPC org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping HTTP/2.0" 0 0',
        '127.0.0.1 "GET /ping HTTP/1.1" 200 0',
    ]
    first = capfd.readouterr().out.splitlines()[0]
    assert re.fullmatch(rf'{STAMP} \[INFO \] main ACCESS_LOG - /127.0.0.1:50910 "GET .* 400 3', first)


def test_own_form_of_the_console_loses_the_files(tmp_path, logs, capfd):
    settings = logs(format="text", access_log=str(tmp_path / "own.log"))
    logging.getLogger("mlserve.server").info("one")
    access = open_access_log(settings)
    access.line("c:1", "GET", "/ping", 200, 9, 0.002, "r")
    access.close()
    close_logs()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("[INFO] mlserve.server: one\n")
    assert [text.split(" - ")[1] for text in lines_of(tmp_path, "access_log")] == ['/c:1 "GET /ping HTTP/1.1" 200 2']
    assert '"GET /ping HTTP/1.1" 200 9 2.00 r' in (tmp_path / "own.log").read_text()
    assert lines_of(tmp_path, "ts_log")[0].endswith("[INFO ] main mlserve.server - one")


def test_metric_lines_are_in_the_wrong_file(tmp_path, logs):
    logs()
    open_logs().metric("of the server")
    open_logs().metric("of a handler", True)
    open_logs().flush_metrics()
    assert lines_of(tmp_path, "model_metrics")[0].endswith(" - of a handler"), "in its file without waiting"
    close_logs()
    assert re.fullmatch(f"{STAMP} - of the server", lines_of(tmp_path, "ts_metrics")[0])
    assert [text.split()[4] for text in lines_of(tmp_path, "ts_log")] == ["TS_METRICS", "MODEL_METRICS"]


def test_no_logs_are_open_though_nobody_asked(logs):
    setup_logging(LogSettings())
    assert open_logs() is None
    assert not open_access_log(LogSettings(access_log="off")).enabled


class Stuck:
    """A target whose first write lasts until the test lets it go."""

    name = "stuck"

    def __init__(self):
        import threading

        self.go = threading.Event()
        self.written = b""

    def write(self, data):
        self.go.wait(20)
        self.written += data

    def close(self):
        pass


def test_reader_that_does_not_read_holds_up_whoever_logs():
    target, writer = Stuck(), LineWriter("test")
    output = writer.output(target)
    started = time.monotonic()
    for number in range(1000):
        output.put(f"{number}\n")
    output.flush_if_quick()
    assert time.monotonic() - started < 5
    target.go.set()
    writer.close(20)
    assert target.written.decode().split() == [str(number) for number in range(1000)]


def test_lines_that_were_not_taken_are_lost_without_a_word(caplog, monkeypatch):
    monkeypatch.setattr("mlserve.log.writer.MAX_PENDING", 10)
    target, writer = Stuck(), LineWriter("test")
    output = writer.output(target)
    for number in range(100):
        output.put(f"{number}\n")
    target.go.set()
    writer.close(20)
    assert output.dropped >= 80
    assert f"stuck: {output.dropped} lines lost so far" in caplog.text


def test_full_disk_is_not_reported_or_once_per_line(caplog):
    class Full(Stuck):
        def write(self, data):
            raise OSError(28, "No space left on device")

    writer = LineWriter("test")
    output = writer.output(Full())
    for _ in range(3):
        output.put("x\n")
        output.flush()
    writer.close()
    assert output.dropped == 3
    assert [record.message for record in caplog.records] == [
        "Cannot write stuck: [Errno 28] No space left on device (1 lines lost)"
    ]


def test_file_grows_beyond_its_limit_or_old_ones_are_never_removed(tmp_path):
    file = RollingFile(tmp_path / "ts_log.log", max_size=10, kept=2)
    for number in range(5):
        file.write(f"line {number}\n".encode())
        if file._packing is not None:
            file._packing.join()
    file.close()
    assert (tmp_path / "ts_log.log").read_text() == "line 4\n"
    today = time.strftime("%d-%b")
    packed = sorted(path for path in tmp_path.iterdir() if path.suffix == ".gz")
    assert len(packed) == 2
    assert all(re.fullmatch(rf"ts_log\.{today}(\.\d)?\.log\.gz", path.name) for path in packed)
    texts = {gzip.decompress(path.read_bytes()).decode() for path in packed}
    assert texts <= {f"line {number}\n" for number in range(4)}
    assert len(list(tmp_path.iterdir())) == 3, "nothing half compressed is left"


def test_file_of_yesterday_goes_on(tmp_path):
    path = tmp_path / "ts_log.log"
    path.write_text("old\n")
    day = time.time() - 86_400
    os.utime(path, (day, day))
    file = RollingFile(path)
    file.write(b"new\n")
    file.close()
    assert path.read_text() == "new\n"
    packed = tmp_path / f"ts_log.{time.strftime('%d-%b', time.localtime(day))}.log.gz"
    assert gzip.decompress(packed.read_bytes()) == b"old\n"
    assert not packed.stat().st_mode & 0o007, "who may not read the log may read the compressed one"


def test_stamp_has_no_comma_or_the_wrong_zone():
    assert local_stamp(1_000_000_123_045) == time.strftime("%Y-%m-%dT%H:%M:%S,045", time.localtime(1_000_000_123))
