"""``mlserve bench`` against a real server, over REST and gRPC: figures, files, limits, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.server import LiveServer, running

from mlserve.cli.app import run
from mlserve.cli.bench_plot import draw

FAULTS = Path(__file__).parents[1] / "faults" / "handlers"
SHORT = ["--duration", "0.3s", "--warmup", "0"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    models = [f"{name}={FAULTS / name}.py" for name in ("echo", "slow", "raises")]
    with running(tmp_path_factory.mktemp("bench"), *models, settings={"GRPC_ENABLED": "true"}) as live:
        yield live


@pytest.fixture
def bench(server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command against the server; (exit code, the JSON that it wrote)."""
    monkeypatch.setenv("MLSERVE_INFERENCE_URL", server.addresses["inference"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello.txt").write_text("hello")

    def call(*argv: str) -> tuple[int, Any]:
        code = run(["bench", *argv, "--json", "out.json"])
        file = tmp_path / "out.json"
        return code, json.loads(file.read_text()) if file.exists() else None

    return call


def test_closed_loop_over_rest_measures_nothing(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = bench("echo", "-i", "hello.txt", "--expect", "hello.txt", "-c", "1,4", *SHORT)
    assert code == 0
    first, second = document["runs"]
    assert (first["concurrency"], second["concurrency"], second["connections"]) == (1, 4, 4)
    assert first["rate"] > 10
    assert 0 < first["latencyMs"]["p50"] <= first["latencyMs"]["p99"] <= first["latencyMs"]["max"]
    assert first["errors"] == {}
    shown = capsys.readouterr().out
    assert "closed loop" in shown
    assert "not corrected for coordinated omission" in shown


def test_calls_over_grpc_are_wrong(bench: Any, server: LiveServer) -> None:
    address = f"grpc://127.0.0.1:{server.port('grpc_inference')}"
    line = [address, "-m", "echo", "-i", "hello.txt", "--input-key", "body", "--expect", "hello.txt", "-n", "20"]
    for protocol in ("grpc", "grpc-stream"):
        code, document = bench(*line, "--protocol", protocol, "-c", "2", "--warmup", "0")
        assert code == 0
        assert document["runs"][0]["requests"] == 20
        assert document["runs"][0]["errors"] == {}


def test_grpc_error_has_no_kind(bench: Any, server: LiveServer) -> None:
    address = f"grpc://127.0.0.1:{server.port('grpc_inference')}"
    code, document = bench(address, "-m", "nope", "-n", "3", "-c", "1", "--warmup", "0", "--allow-errors")
    assert code == 0
    assert document["runs"][0]["errors"] == {"gRPC NOT_FOUND": 3}


def test_stall_of_the_server_is_hidden_from_an_open_loop(bench: Any, server: LiveServer) -> None:
    """One request holds the model's only worker for 0.4 s while others keep coming: they must show their wait."""
    Path("fast").write_text("0")

    def asked() -> float:
        return server.metric("mlserve_request_seconds_count", model="slow")

    before = asked()

    def stall() -> None:
        server.wait_for(lambda: asked() > before + 5)  # the run has begun
        server.predict("slow", b"0.4")

    blocker = threading.Thread(target=stall)
    blocker.start()
    try:
        code, document = bench(
            "slow", "-i", "fast", "--rate", "50", "--arrivals", "constant", "-t", "1.6s", "--warmup=0"
        )
    finally:
        blocker.join()
    assert code == 0
    (result,) = document["runs"]
    assert (result["mode"], result["requests"], result["errors"]) == ("open", 80, {})
    assert result["latencyMs"]["p99"] > 300
    assert result["latencyMs"]["p90"] > 100


def test_error_passes_unless_it_is_allowed(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("raises", "-d", "1", "-c", "1", *SHORT) == (1, None)
    assert "fails before any load: HTTP 500" in capsys.readouterr().err
    code, document = bench("raises", "-d", "1", "-c", "1", *SHORT, "--allow-errors")
    (result,) = document["runs"]
    assert code == 0
    assert result["errors"] == {"HTTP 500": result["requests"]}
    assert result["requests"] > 0
    assert result["rate"] == 0


def test_one_wrong_answer_of_two_passes(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.txt").write_text("other")
    argv = ["echo", "-i", "hello.txt", "-i", "other.txt", "--expect", "hello.txt", "-c", "2", "-n", "10", "--warmup=0"]
    assert bench(*argv) == (1, None)
    assert "input 2 fails before any load: wrong answer (other)" in capsys.readouterr().err
    assert bench(*argv, "--allow-errors")[1]["runs"][0]["errors"] == {"wrong answer": 5}


def test_limit_is_not_held(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pause").write_text("0.02")
    slow = ["slow", "-i", "pause", "-c", "1", *SHORT]
    code, document = bench(*slow, "--max-p99", "20ms", "--min-rate", "1000")
    assert code == 1
    assert len(document["broken"]) == 2
    assert "more than 20.0 ms" in capsys.readouterr().err
    assert bench(*slow, "--max-p99", "20s", "--max-p50", "10s", "--min-rate", "1")[0] == 0


@pytest.mark.parametrize(
    "argv",
    [
        ["echo", "-c", "1", "--rate", "1"],
        ["echo", "-c", "0"],
        ["echo", "--rate", "1", "--arrivals", "bursts"],
        ["echo", "-t", "soon"],
        ["echo", "--timeout", "0"],
        ["echo", "--plot", "x.pdf"],
        ["echo", "-m", "echo"],
        ["echo", "--plot", "nowhere/x.svg"],
        [""],
    ],
)
def test_wrong_usage_is_measured(bench: Any, argv: list[str]) -> None:
    assert bench(*argv) == (2, None)


def test_missing_server_is_an_error_count(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("http://127.0.0.1:1/x", *SHORT)[0] == 3
    assert bench("grpc://127.0.0.1:1", "-m", "x", *SHORT)[0] == 3
    assert capsys.readouterr().err.count("connection refused") == 2


def test_plot_needs_more_than_is_said(bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert bench("echo", "--plot", "x.svg", *SHORT) == (2, None)
    assert "pip install 'mlserve[plot]'" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_plot_is_not_drawn(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"plot.{suffix}"
    curve = {"level": [1.0, 8.0, 64.0], "rate": [10.0, 60.0, 80.0], "p50": [1.0, 2.0, 9.0], "p99": [2.0, 5.0, 90.0]}
    draw(str(file), curve, level="connections", title="a title")
    if suffix == "svg":
        assert xml.etree.ElementTree.parse(file).getroot().tag.endswith("svg")
    else:
        assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_by_a_signal_loses_what_was_measured(server: LiveServer, number: signal.Signals, tmp_path: Path) -> None:
    """The model is slow: a loop that waits takes a signal another way than one that is busy."""
    (tmp_path / "pause").write_text("0.1")
    argv = ["bench", "slow", "-i", str(tmp_path / "pause"), "-c", "1,2", "-t", "60s", "--warmup", "0", "--json", "-"]
    command = [str(Path(sys.executable).parent / "mlserve"), *argv, "--url", server.addresses["inference"]]

    def asked() -> float:
        return server.metric("mlserve_request_seconds_count", model="slow")

    server.predict("slow", b"0")
    until = asked() + 5
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        server.wait_for(lambda: asked() > until)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    (result,) = json.loads(out)["runs"]
    assert result["interrupted"]
    assert 0 < result["seconds"] < 20
    assert result["requests"] > 0
