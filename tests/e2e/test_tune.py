"""``mlserve tune`` on a model whose right answer is known: a batch of n sleeps 60 + 60 n milliseconds.

The target is on the median: the tail is the machine's, which other tests use at the same time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from mlserve.cli.app import run

SLEEPER = """
import time

class Handler:
    def initialize(self, context): pass

    def handle(self, data, context):
        time.sleep(0.060 + 0.060 * len(data))
        return [row["body"] for row in data]
"""


def tune(folder: Path, *arguments: str, threads: int = 1) -> subprocess.CompletedProcess[str]:
    (folder / "sleeper.py").write_text(SLEEPER)
    (folder / "tmp").mkdir()
    command = [sys.executable, "-m", "mlserve", "tune", "sleeper.py", "--workers", "1"]
    command += [] if "-i" in arguments else ["-d", "{}"]
    command += ["--threads", str(threads)]
    environ = {"PATH": "/usr/bin:/bin", "TMPDIR": str(folder / "tmp"), "HOME": str(folder)}
    environ |= {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
    done = subprocess.run(
        [*command, *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=100, check=False
    )
    assert list((folder / "tmp").iterdir()) == [], "left behind"
    left = [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]
    assert not left
    return done


def test_the_batch_that_just_meets_the_target_is_found_and_written(tmp_path: Path) -> None:
    """2 take 180 ms and 3 take 240; 4 would take 300."""
    (tmp_path / "model-config.yaml").write_text("# ours\nbatchSize: 2\nresponseTimeout: 60\n")
    done = tune(tmp_path, "--slo", "p50=275ms", "--max-batch", "4", "--time", "16s", "--out", "new.yaml", "--json", "-")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    written = yaml.safe_load((tmp_path / "new.yaml").read_text())
    assert written.pop("responseTimeout") == 60
    assert written == found["best"]
    assert written["batchSize"] in (2, 3)
    assert (written["minWorkers"], written["maxWorkers"], written["threadsPerWorker"]) == (1, 1, 1)
    best = next(one for one in found["verified"] if one["config"] == found["best"])
    assert best["met"]
    assert best["latencyMs"]["p50"] <= 275
    medians = {point["batchSize"]: point["medianMs"] for point in found["curves"][0]["points"]}
    assert {1, 2, 4} <= medians.keys()
    assert all(60 + 60 * size <= medians[size] < 100 + 60 * size for size in medians)


def test_batches_at_once_are_not_found_where_they_double_the_rate(tmp_path: Path) -> None:
    """Two that sleep at the same time take as long as one."""
    for number in (1, 2):
        (tmp_path / f"{number}.txt").write_text(str(number))
    inputs = ("-i", "1.txt", "-i", "2.txt")
    asked = ("--slo", "p50=160ms", "--max-batch", "1", "--time", "16s", "--json", "-")
    done = tune(tmp_path, *asked, *inputs, threads=2)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [curve["handlerThreads"] for curve in found["curves"]] == [1, 2]
    written = yaml.safe_load((tmp_path / "model-config.yaml").read_text())
    assert written == found["best"]
    assert (written["handlerThreads"], written["threadsPerWorker"], written["minWorkers"]) == (2, 2, 1)
    best = next(one for one in found["verified"] if one["config"] == found["best"])
    assert best["rate"] > 1 / 0.12, "more than one batch at a time could answer"


def test_a_file_that_cannot_be_written_is_found_out_after_the_measuring(tmp_path: Path) -> None:
    done = tune(tmp_path, "--slo", "p99=30ms", "--out", "nowhere/model-config.yaml")
    assert (done.returncode, done.stderr) == (2, "mlserve: error: --out: there is no folder nowhere\n")


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--time", "0"], "--time: '0'"), (["-i", "nofile"], "--input: cannot read nofile")]
)
def test_wrong_usage_is_measured(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", "sleeper.py", "--slo", "p99=30ms", *arguments]) == 2
    assert words in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_target_that_nothing_meets_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    done = tune(tmp_path, "--slo", "p99=30ms", "--max-batch", "4", "--time", "10s")
    assert done.returncode == 1
    assert "no setting meets p99=30.0ms; nothing is written" in done.stderr
    assert "p99 " in done.stderr.rpartition("Nearest: ")[2]
    assert not (tmp_path / "model-config.yaml").exists()
