"""`mlserve models` and `mlserve predict` against a scripted server: what they send, print and exit with."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlserve.cli.app import run
from mlserve.cli.client import Answer, Client, path_of
from mlserve.cli.predict import quantile, server_phases, summarise
from mlserve.cli.reaching import server_url
from mlserve.errors import SettingError

MODEL = {
    "modelName": "m", "modelVersion": "1.0", "modelUrl": "m.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": 8,
    "maxBatchDelay": 5, "responseTimeout": 120, "startupTimeout": 120, "defaultVersion": True, "state": "DEGRADED",
    "jobQueueStatus": {"remainingCapacity": 90, "pendingRequests": 10}, "lastError": "no memory left",
    "workers": [
        {
            "id": "9000", "startTime": "2026-11-21T09:42:37.123Z", "status": "UNLOADING", "state": "BACKOFF",
            "memoryUsage": 5 << 20, "pid": 77, "gpu": False, "device": "cpu", "restarts": 3,
            "lastExit": "killed by signal 9", "traceback": "Traceback\nImportError: nope",
            "logTail": ["[red]loading[/red]", "Traceback", "ImportError: nope"],
        }
    ],
}  # fmt: skip


class Scripted:
    """A server that answers from a list, and remembers (method, path, headers, body) of each request."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, str, bytes]] = []
        self.headers: dict[str, str] = {}
        scripted = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                scripted.requests.append((self.command, self.path, dict(self.headers), body))
                answers = scripted.answers
                status, kind, content = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                for name, value in {"Content-Type": kind, **scripted.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def json(self, document: Any, status: int = 200) -> None:
        self.answers.append((status, "application/json", json.dumps(document).encode()))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    scripted = Scripted()
    thread = threading.Thread(target=scripted.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("MLSERVE_MANAGEMENT_URL", scripted.url)
    monkeypatch.setenv("MLSERVE_INFERENCE_URL", scripted.url)
    yield scripted
    scripted.server.shutdown()
    thread.join()
    scripted.server.server_close()


@pytest.mark.parametrize(
    ("argv", "method", "path"),
    [
        (["list", "--limit", "2", "--next-page-token", "4"], "GET", "/models?limit=2&next_page_token=4"),
        (["describe", "m"], "GET", "/models/m"),
        (["describe", "m", "--version", "all"], "GET", "/models/m/all"),
        (["describe", "a b/c"], "GET", "/models/a%20b%2Fc"),
        (["register", "m.mar"], "POST", "/models?url=m.mar&initial_workers=1&synchronous=true"),
        (
            ["register", "m.mar", "--model-name", "n", "--batch-size", "4", "--max-batch-delay", "2.5",
             "--initial-workers", "0", "--response-timeout", "9", "--no-synchronous"],
            "POST",
            "/models?url=m.mar&model_name=n&batch_size=4&max_batch_delay=2.5&initial_workers=0&response_timeout=9.0"
            "&synchronous=false",
        ),
        (["scale", "m"], "PUT", "/models/m?min_worker=1&synchronous=true"),
        (["scale", "m", "--min-worker", "2"], "PUT", "/models/m?min_worker=2&synchronous=true"),
        (
            ["scale", "m", "-V", "2.0", "--min-worker", "0", "--max-worker", "3", "--no-synchronous"],
            "PUT",
            "/models/m/2.0?min_worker=0&synchronous=false&max_worker=3",
        ),
        (["set-default", "m", "2.0"], "PUT", "/models/m/2.0/set-default"),
        (["unregister", "m", "--version", "1.0"], "DELETE", "/models/m/1.0"),
    ],
)  # fmt: skip
def test_command_asks_for_something_else(
    server: Scripted, capsys: pytest.CaptureFixture[str], argv: list[str], method: str, path: str
) -> None:
    server.json({"status": "done", "models": []} if argv[0] != "describe" else [MODEL])
    assert run(["models", *argv]) == 0
    assert [request[:2] for request in server.requests] == [(method, path)]
    if argv[0] not in ("list", "describe"):
        assert capsys.readouterr().out == "done\n"


def test_list_stops_after_the_first_page(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    server.json({"nextPageToken": "100", "models": [{"modelName": "a", "modelUrl": "a.mar"}]})
    server.json({"models": [{"modelName": "b", "modelUrl": "b.mar"}]})
    assert run(["models", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["MODEL  URL", "a      a.mar", "b      b.mar"]
    assert server.requests[1][1] == "/models?next_page_token=100"


def test_json_output_is_not_the_servers_document(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    server.json([MODEL])
    assert run(["models", "describe", "m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [MODEL]


def test_describe_hides_why_a_worker_ended(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    server.json([MODEL])
    assert run(["models", "describe", "m"]) == 0
    shown = capsys.readouterr().out
    for text in ("1.0 (default)", "DEGRADED", "no memory left", "killed by signal 9", "  ImportError: nope", "BACKOFF"):
        assert text in shown
    assert "  [red]loading[/red]" in shown
    assert shown.count("ImportError: nope") == 1


def test_describe_hides_a_setting_or_where_it_came_from(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"batchSize": 8, "latencyTarget": 50, "handlerThreads": 2, "stateful": True, "isolateErrors": False}
    provenance = {
        "batch_size": "model-config.yaml",
        "max_batch_delay_ms": "default",
        "latency_target_ms": "register",
        "handler_threads": "mlserve.toml [model.m]",
        "sequence_batching": "model-config.yaml",
        "isolate_errors": "snapshot",
        "python": "mlserve.toml [model.m]",
        "handler": "manifest",
    }
    server.json([{**MODEL, **given, "provenance": provenance}])
    assert run(["models", "describe", "m"]) == 0
    shown = [line.split(maxsplit=2) for line in capsys.readouterr().out.split("\n\n")[1].splitlines()]
    assert shown == [
        ["SETTING", "VALUE", "FROM"],
        ["batchSize", "8", "model-config.yaml"],
        ["latencyTarget", "50", "register"],
        ["isolateErrors", "false", "snapshot"],
        ["handlerThreads", "2", "mlserve.toml [model.m]"],
        ["sequenceBatching", "true", "model-config.yaml"],
    ]


def test_error_answer_exits_zero_or_shows_a_page(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    server.json({"code": 404, "type": "ModelNotFoundException", "message": "Model not found: x"}, 404)
    for argv in (["models", "describe", "x"], ["predict", "x", "-d", "1"]):
        assert run(argv) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err == "mlserve: error: HTTP 404 ModelNotFoundException: Model not found: x\n"


def test_refused_connection_does_not_name_the_address(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for argv in (["models", "list", "--url", address], ["predict", "m", "-d", "1", "--url", address]):
            assert run(argv) == 3
            assert f"no server at {address} (connection refused)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["models", "list", "--url", "8081"],
        ["models", "list", "--url", "http://127.0.0.1:port"],
        ["models", "scale", "m", "--min-worker", "two"],
        ["predict", "m"],
        ["predict", "m", "-d", "1", "-T", "x"],
        ["predict", "m", "-d", "{"],
        ["predict", "m", "-T", "/does/not/exist"],
        ["predict", "m", "-d", "1", "--repeat", "0"],
    ],
)
def test_wrong_usage_exits_with_another_code_than_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv) == 2
    assert capsys.readouterr().err


def test_file_goes_out_changed(server: Scripted, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    server.answers.append((200, "", b"\x89answer\xff"))
    photo = tmp_path / "kitten.jpg"
    photo.write_bytes(bytes(range(256)))
    assert run(["predict", "m", "-T", str(photo), "--version", "2.0", "--timeout", "7"]) == 0
    method, path, headers, body = server.requests[0]
    assert (method, path, body) == ("POST", "/predictions/m/2.0", bytes(range(256)))
    assert (headers["Content-Type"], headers["x-request-timeout"]) == ("image/jpeg", "7")
    assert capsysbinary.readouterr().out == b"\x89answer\xff"


def test_repeat_sends_once_or_loses_the_phases(server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers.append((200, "application/json", b'{"cat": 0.9}'))
    server.headers["Server-Timing"] = 'queue;dur=0.5, inference;dur=1.25, batch;desc="1"'
    assert run(["predict", "m", "-d", "[1]", "--repeat", "5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(server.requests) == document["requests"] == 5
    assert server.requests[0][2]["x-mlserve-timing"] == "1"
    assert document["answer"] == {"cat": 0.9}
    assert document["milliseconds"]["inference"] == {"min": 1.25, "median": 1.25, "p99": 1.25}
    assert document["milliseconds"]["total"]["min"] > 0
    assert run(["predict", "m", "-d", "[1]", "--repeat", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith('{"cat": 0.9}\n\n2 REQUESTS, MS')
    assert "queue" in out


def test_quantile_is_not_the_nearest_rank() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [quantile(values, share) for share in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    assert quantile([3.0], 0.99) == 3
    summary = summarise([0.002, 0.001, 0.003])
    assert summary == {"requests": 3, "milliseconds": {"total": {"min": 1.0, "median": 2.0, "p99": 3.0}}}
    assert server_phases("") == {}


def test_address_comes_from_the_wrong_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLSERVE_MANAGEMENT_URL", raising=False)
    assert server_url("management") == "http://127.0.0.1:8081"
    monkeypatch.setenv("MLSERVE_MANAGEMENT_URL", "http://elsewhere:1/base/")
    assert server_url("management") == "http://elsewhere:1/base/"
    assert server_url("management", "http://given") == "http://given"
    assert path_of("models", "m", "", "x?y") == "/models/m/x%3Fy"
    with pytest.raises(SettingError, match="no URL"):
        Client("localhost:8081")


def test_error_line_breaks_into_several() -> None:
    html = Answer(502, "Bad Gateway", {}, b"<h1>Bad</h1>\r\n\r\nGateway")
    assert html.error_line() == "HTTP 502 <h1>Bad</h1> Gateway"
    assert Answer(500, "Oops", {}, b"").error_line() == "HTTP 500 Oops"
