"""What ``mlserve init`` writes for kinds that need a library of their own: its tests, its script and its commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
ASKED = {
    "tabular": ("model.skops", '{"age": 30, "income": 90000}'),
    "onnx": ("model.onnx", '{"x": [5.1, 3.5, 1.4, 0.2]}'),
    "llm": (".", '{"prompt": "the cat", "max_tokens": 5}'),
}


def command(*words: object, cwd: Path) -> str:
    environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environ, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ASKED)
def test_a_scaffold_passes_its_test_and_packs_what_answers_as_it_does(tmp_path: Path, kind: str) -> None:
    target, body = ASKED[kind]
    command(BIN / "mlserve", "init", "my-model", "--kind", kind, cwd=tmp_path)
    folder = tmp_path / "my-model"
    assert "2 passed" in command(BIN / "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    answer = command(BIN / "mlserve", "run", target, "-d", body, cwd=folder)
    assert "2 passed" in command("./pack.sh", "3.0", cwd=folder)
    packed = command(BIN / "mlserve", "run", "model_store/my-model.mar", "-d", body, cwd=folder)
    assert packed == answer
    if kind == "onnx":
        assert sum(json.loads(answer)["probabilities"]) == pytest.approx(1, abs=1e-6)
    else:
        assert answer.strip()
