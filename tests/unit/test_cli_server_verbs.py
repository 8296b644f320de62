"""``start``, ``stop`` and ``status`` against a server that is played by the test."""

import io
import json
import logging
import os
import sys
import types

import psutil
import pytest

from mlserve.cli import app, status
from mlserve.cli.client import NotReachable, Refused
from mlserve.cli.console import LiveProgress, LogProgress, make_progress
from mlserve.cli.detach import PipeProgress, replay
from mlserve.cli.pidfile import PidFile
from mlserve.cli.shims.serving import Announcer
from mlserve.errors import ServeError
from mlserve.log import LOGGERS


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLSERVE_SERVER_PID_FILE", str(tmp_path / "pid"))
    loggers = [logging.getLogger(name) for name in LOGGERS]
    states = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    yield
    for one, (handlers, level, propagate) in zip(loggers, states, strict=True):
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


@pytest.fixture
def server(monkeypatch):
    """Puts a function in the place of ``mlserve.server.run``."""

    def install(run):
        module = types.ModuleType("mlserve.server")
        module.run, module.MODEL_FAILED = run, 4
        monkeypatch.setitem(sys.modules, "mlserve.server", module)
        monkeypatch.setattr("mlserve.server", module, raising=False)

    return install


def test_start_hands_over_the_settings_and_keeps_the_pid_file_up_to_date(server, tmp_path):
    seen, begun_ones = [], []

    def run(settings, progress, begun):
        (process,) = processes = psutil.Process().children()
        assert (begun.url, process.pid) == ("a", begun.started.popen.pid), "the first worker's process runs by now"
        begun_ones.extend(processes)
        seen.append((settings.defaults.batch_size, settings.models.load))
        progress.listening("inference", "http://127.0.0.1:5")
        seen.append(PidFile(tmp_path / "pid").read().state)
        progress.ready(0.5)
        info = PidFile(tmp_path / "pid").read()
        seen.append((info.state, info.addresses, info.pid))
        progress.stopping("SIGTERM")
        seen.append(PidFile(tmp_path / "pid").read().state)
        progress.stopped()
        return 0

    server(run)
    assert app.run(["start", "--batch-size", "3", "--models", "a", "b"]) == 0
    addresses = {"inference": "http://127.0.0.1:5"}
    assert seen == [(3, ("a", "b")), "starting", ("ready", addresses, os.getpid()), "stopping"]
    assert not (tmp_path / "pid").exists()
    assert not begun_ones[0].is_running(), "no engine has taken it over, so it ends"


def test_pid_file_goes_when_the_server_breaks(server, tmp_path, capsys):
    def run(settings, progress, begun):
        raise ServeError("port taken")

    server(run)
    assert app.run(["start"]) == 1
    assert "mlserve: error: port taken" in capsys.readouterr().err
    assert not (tmp_path / "pid").exists()


def test_model_that_did_not_load_is_the_last_thing_said(server, capsys):
    def run(settings, progress, begun):
        progress.model_loading("m")
        progress.model_failed("m", ServeError("no weights", detail="Traceback"))
        return 4

    server(run)
    assert app.run(["start"]) == 4
    last = capsys.readouterr().err.splitlines()[-2:]
    assert last[0] == "mlserve: error: model m did not load: no weights"
    assert "--keep-going" in last[1]


def test_second_start_says_which_server_runs(server, tmp_path, capsys):
    server(lambda settings, progress, begun: pytest.fail("started twice"))
    PidFile(tmp_path / "pid").claim()
    assert app.run(["start"]) == 1
    assert f"A server is running already (pid {os.getpid()}" in capsys.readouterr().err


def test_log_file_without_detach_is_refused_not_ignored(server, capsys):
    server(lambda settings, progress, begun: pytest.fail("started"))
    assert app.run(["start", "--log-file", "x"]) == 2


def test_notes_of_a_torchserve_file_are_logged_at_start(server, tmp_path, monkeypatch, capsys):
    server(lambda settings, progress, begun: 0)
    monkeypatch.setenv("MLSERVE_LOG_FORMAT", "text")
    (tmp_path / "c.properties").write_text("io_ratio=true\n")
    assert app.run(["start", "--config", "c.properties"]) == 0
    assert "c.properties:1: io_ratio is accepted and ignored" in capsys.readouterr().err


def test_events_survive_the_pipe(capsys):
    read_fd, write_fd = os.pipe()
    child = PipeProgress(write_fd)
    child.model_loading("m")
    child.worker_ready("m", 1, 2)
    child.listening("inference", "http://h:1")
    child.model_ready("m", 0.5)
    child.model_failed("bad", ServeError("cause", detail="Traceback"))
    child.ready(1.5)
    child.stopping("later")  # nobody listens any more
    parent = LogProgress()
    with os.fdopen(read_fd) as lines:
        assert replay(lines, parent)
    assert (parent.addresses, parent.failures) == (child.addresses, child.failures)
    assert parent.models == child.models
    assert parent.models["m"].seconds == 0.5


def test_start_that_ends_before_ready_is_a_failure():
    assert not replay(io.StringIO('["model_loading", "m"]\n'), LogProgress())


def test_server_goes_on_when_the_process_that_started_it_is_gone():
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    child = PipeProgress(write_fd)
    child.model_loading("m")
    child.ready(1.0)
    child.close()


def test_live_view_shows_states_and_takes_names_literally(monkeypatch):
    from rich.console import Console

    progress = LiveProgress()
    try:
        progress.model_loading("m[red]")
        progress.worker_ready("m[red]", 1, 2)
        progress.model_loading("bad")
        progress.model_failed("bad", ServeError("no [weights]\nsecond line"))
        progress.model_ready("quick", 0.25)
        progress.listening("inference", "http://h:1")
        console = Console(file=io.StringIO(), width=100)
        console.print(progress.view())
        shown = console.file.getvalue()
    finally:
        progress.close()
        progress.close()
    for piece in ("m[red]", "1/2 workers", "failed: no [weights]", "ready after 0.2 s", "http://h:1"):
        assert piece in shown
    assert "second line" not in shown


def test_view_is_live_only_for_people_at_a_terminal(monkeypatch, capsys):
    assert type(make_progress("text")) is LogProgress
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert type(make_progress("json")) is LogProgress
    live = make_progress("text")
    live.close()
    assert type(live) is LiveProgress


def test_stop_without_a_server_is_exit_code_3(capsys):
    assert app.run(["stop"]) == 3
    assert "mlserve is not running" in capsys.readouterr().err


@pytest.fixture
def answers(monkeypatch):
    """Plays the server's HTTP answers: (address, path[, token]) -> (status, JSON), or an exception."""
    table: dict[tuple[str, str], object] = {}

    def get(address, path, token=""):
        key = (address, path, token) if token else (address, path)
        answer = table.get(key, NotReachable(f"no server at {address} (connection refused); start one"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(status, "_get", get)
    return table


def running(tmp_path, state: str) -> None:
    file = PidFile(tmp_path / "pid")
    file.claim()
    file.add_address("inference", "I")
    file.add_address("management", "M")
    file.update(state=state)


def test_status_of_a_ready_server_lists_models_of_every_page(tmp_path, answers, capsys):
    running(tmp_path, "ready")
    workers = [{"status": "READY"}, {"status": "UNLOADING"}]
    answers["I", "/health/ready"] = (200, {"ready": True})
    answers["M", "/models?limit=1000"] = (200, {"models": [{"modelName": "a"}], "nextPageToken": "1"})
    answers["M", "/models?limit=1000&next_page_token=1"] = (200, {"models": [{"modelName": "b"}]})
    answers["M", "/models/a/all"] = (200, [{"modelName": "a", "modelVersion": "1.0", "workers": workers}])
    answers["M", "/models/b/all"] = (200, [{"modelName": "b", "modelVersion": "2.0", "workers": []}])
    assert app.run(["status", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["state"], document["pid"]) == ("ready", os.getpid())
    assert [(m["name"], m["ready_workers"], m["workers"]) for m in document["models"]] == [("a", 1, 2), ("b", 0, 0)]
    assert app.run(["status"]) == 0
    assert "model        a 1.0: 1 of 2 workers ready" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("state", "answer", "code", "shown"),
    [
        ("starting", (503, {"ready": False}), 1, "starting"),
        ("ready", (503, {"ready": False}), 1, "not ready"),
        ("ready", Refused("I did not answer within 5 s"), 1, "not answering"),
        ("ready", (200, "something else"), 1, "not answering"),
    ],
)
def test_status_tells_the_kinds_of_not_ready_apart(tmp_path, answers, capsys, state, answer, code, shown):
    running(tmp_path, state)
    answers["I", "/health/ready"] = answer
    assert app.run(["status"]) == code
    assert capsys.readouterr().out.startswith(f"mlserve is {shown} (pid")


def test_server_without_a_pid_file_is_found_at_the_configured_address(answers, capsys):
    answers["http://127.0.0.1:9090", "/health/ready"] = (200, {"ready": True})
    answers["http://127.0.0.1:8081", "/models?limit=1000"] = (200, {"models": []})
    assert app.run(["status", "--host", "0.0.0.0", "--inference-port", "9090"]) == 0
    assert capsys.readouterr().out.startswith("mlserve is ready\n")


def test_other_programs_port_is_not_taken_for_a_server(answers, capsys):
    answers["http://127.0.0.1:8080", "/health/ready"] = (404, None)
    assert app.run(["status"]) == 3
    assert "something else than mlserve" in capsys.readouterr().out


def test_line_that_launchers_wait_for_is_written_in_one_piece(monkeypatch):
    pieces = []
    out = types.SimpleNamespace(write=pieces.append, flush=lambda: None)
    monkeypatch.setattr(sys, "stdout", out)
    Announcer().ready(0.5)
    monkeypatch.undo()
    assert pieces == ["Model server started.\n"], "a line of the log, from its thread, may come between two"
