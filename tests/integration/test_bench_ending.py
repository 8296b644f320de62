"""A benchmark that is told to end stops its servers, which are in sessions of their own."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SLOW_TO_END = "import signal, time; signal.signal(15, lambda *_: (time.sleep(0.5), exit())); print(1); time.sleep(100)"
BENCHMARK = f"""
import os, sys, time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from benchmarks import __main__ as program, servers

def main(arguments):
    with ExitStack() as stack:
        for number in range(2):
            command = [sys.executable, "-uc", {SLOW_TO_END!r}]
            server = servers.launch("server", 1, command, Path(arguments[0]), dict(os.environ))
            stack.callback(server.stop)
            server.wait_ready(lambda: b"1" in server.log.read_bytes())
            print(server.process.pid, flush=True)
        time.sleep(100)

sys.modules["benchmarks.example"] = SimpleNamespace(main=main)
program.main("example", sys.argv[1])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_servers_are_left_behind_by_a_signal_or_by_a_second_one(number: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BENCHMARK, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            servers = [int(process.stdout.readline()) for _ in range(2)]
            process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)  # it waits for the first server, of two
            process.send_signal(number)
            assert process.wait(timeout=60) == 128 + number
        finally:
            process.kill()
    assert not [pid for pid in servers if psutil.pid_exists(pid)]


def test_a_benchmark_with_servers_is_run_without_that() -> None:
    """``hotpath`` is one process."""
    text = (ROOT / "scripts" / "bench").read_text(encoding="utf-8")
    assert re.findall(r"-m benchmarks\.(\w+)", text) == ["hotpath"]
    assert '-m benchmarks "$name" "$@"' in text
