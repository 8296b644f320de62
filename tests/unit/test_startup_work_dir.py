"""Where models are unpacked: one directory per server, and none left by servers and tunings that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlserve.startup import make_work_dir


def test_unpacked_models_of_a_killed_server_are_not_left_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stale, foreign = tmp_path / f"mlserve-work-{gone.pid}-abc", tmp_path / "mlserve-work-notes-1"
    tuned = tmp_path / f"mlserve-tune-{gone.pid}-abc"
    living, tuning = (tmp_path / f"mlserve-{kind}-{os.getppid()}-abc" for kind in ("work", "tune"))
    for path in (stale, tuned, foreign, living, tuning):
        (path / "models").mkdir(parents=True)
    own = make_work_dir()
    assert sorted(tmp_path.iterdir()) == sorted([own, foreign, living, tuning])
    assert own.name.startswith(f"mlserve-work-{os.getpid()}-")
    assert own.stat().st_mode & 0o077 == 0
