"""What ``mlserve tune`` verifies settings with, and what it says about them. No server is started here."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from mlserve.cli.sources import CommandLine, read_settings
from mlserve.cli.tune import _verify
from mlserve.cli.tune_progress import Budget
from mlserve.cli.tune_search import Setting, Setup, Trial, slos_of, variations
from mlserve.cli.tune_verify import Verified, serving, told
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.load.result import CLOSED, LoadResult
from mlserve.settings import Settings

SLOS = slos_of(["p99=50ms"])
BEST = Setting(Setup(1, 2), 8, 25.0)


class NotStarted(Exception):
    """In place of a server."""


@pytest.mark.parametrize("given", ["", "2"])
def test_a_spare_imports_torch_beside_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    if given:
        monkeypatch.setenv("MLSERVE_WORKERS_SPARE", given)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found: list[Settings] = []

    def start(command: list[str], **options: Any) -> None:
        config = next(word.partition("=")[2] for word in command if word.startswith("--config="))
        assert Path(config).is_relative_to(next(tmp_path.glob(f"mlserve-tune-{os.getpid()}-*"))), "is never removed"
        with monkeypatch.context() as child:
            for name, value in (options["env"] if options.get("env") else {}).items():
                child.setenv(name, value)
            found.append(read_settings(CommandLine(config=Path(config))))
        raise NotStarted

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(NotStarted), serving(ModelSpec(ModelKey("m", "1.0"), str(tmp_path), "h"), BEST, []):
        pass
    assert found[0].workers.spare == 0
    assert list(tmp_path.iterdir()) == []


def test_settings_that_were_left_out_look_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    kept = Verified(BEST, LoadResult(CLOSED, 8), 0.5)
    spec = ModelSpec(ModelKey("m", "1.0"), "", "h")
    budget = Budget(0.0)
    settings = variations(BEST, SLOS, [1, 9])
    for setting in settings:
        _verify(spec, [], Trial(setting, (8, 16), 1.0), [], SLOS, budget, [kept])
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert len(settings) == len(set(lines)) == 3
    assert lines[-1] == (
        "1 worker, 2 threads each: batch size 8, eager, delay 0 ms, 8 or 16 clients: not verified, the time is over"
    )


@pytest.mark.parametrize(("clients", "words"), [(1, " 1 client: "), (2, " 2 clients: ")])
def test_one_client_is_called_clients(clients: int, words: str) -> None:
    assert words in told(Verified(BEST, LoadResult(CLOSED, clients), 0.5), SLOS)
