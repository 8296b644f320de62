"""What ``mlserve init`` writes for kinds that need a library of their own: its tests, its script and its commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

BIN = Path(sys.executable).parent
ASKED = {
    "image": (".", ["--input", "photo.png"]),
    "text": (".", ["-d", '{"text": "a b c"}']),
    "tabular": ("model.skops", ["-d", '{"age": 30, "income": 90000}']),
    "onnx": ("model.onnx", ["-d", '{"x": [5.1, 3.5, 1.4, 0.2]}']),
    "llm": (".", ["-d", '{"prompt": "the cat", "max_tokens": 5}']),
}
NAMED = {"image": {"first class", "second class", "third class"}, "text": {"negative", "positive"}}


def command(*words: object, cwd: Path) -> str:
    environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ASKED)
def test_a_scaffold_passes_its_test_and_packs_what_answers_as_it_does(tmp_path: Path, kind: str) -> None:
    target, given = ASKED[kind]
    command(BIN / "mlserve", "init", "my-model", "--kind", kind, cwd=tmp_path)
    folder = tmp_path / "my-model"
    Image.linear_gradient("L").save(folder / "photo.png")
    assert "2 passed" in command(BIN / "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    answer = command(BIN / "mlserve", "run", target, *given, cwd=folder)
    assert "2 passed" in command("./pack.sh", "3.0", cwd=folder)
    packed = command(BIN / "mlserve", "run", "model_store/my-model.mar", *given, cwd=folder)
    if kind in NAMED:  # their weights are random until somebody trains them
        alone = command(BIN / "mlserve", "run", "handler.py", *given, cwd=folder)
        assert [set(json.loads(each)) for each in (answer, packed, alone)] == [NAMED[kind]] * 3
        return
    assert packed == answer
    if kind == "onnx":
        assert sum(json.loads(answer)["probabilities"]) == pytest.approx(1, abs=1e-6)
    else:
        assert answer.strip()
