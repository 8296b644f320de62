"""``mlserve archive --auto-config``: the model is asked, and what is written is what the server then goes by."""

import json
import subprocess
import sys
import warnings
import zipfile

import pytest
import torch
import yaml

from tests.support.server import running


class Fixed(torch.nn.Module):
    def forward(self, x):
        return x.reshape(1, 4) * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        torch.jit.script(torch.nn.Linear(4, 3)).save(str(folder / "script.pt"))
        torch.jit.script(Fixed()).save(str(folder / "fixed.pt"))
    (folder / "mine.yaml").write_text("# mine\nmaxBatchDelay: 7\ninputs: {rows: {dtype: float32, shape: [-1, 4]}}\n")
    for name in ("script", "fixed"):
        archive(folder, name, "--config-file", "mine.yaml")
    return folder


def archive(folder, name, *more):
    line = [sys.executable, "-m", "mlserve", "archive", "--model-name", name, "--version", "1.0", "--handler", "auto"]
    line += ["--serialized-file", f"{name}.pt", "--auto-config", *more]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def config(folder, name, file="mine.yaml"):
    return zipfile.ZipFile(folder / f"{name}.mar").read(file).decode()


def test_what_was_found_is_written_behind_what_the_user_wrote(folder):
    text = config(folder, "script")
    assert text.startswith("# mine\n")
    written = yaml.safe_load(text)
    assert written["inputs"] == {"rows": {"dtype": "float32", "shape": [-1, 4]}}
    assert written["outputs"] == {"output": {"dtype": "float32", "shape": [-1, 3], "batch_axis": 0}}
    assert (written["batchSize"], written["maxBatchDelay"]) == (8, 7)
    fixed = config(folder, "fixed")
    assert "batchSize: 1 # the model has no dynamic batch dimension: a batch of 2 fails" in fixed


def test_the_server_describes_and_serves_by_what_was_written(folder, tmp_path):
    with running(tmp_path, "script.mar", "fixed.mar", store=folder) as server:
        assert server.describe("script")["batchSize"] == 8
        assert server.describe("script")["signature"]["outputs"] == [
            {"name": "output", "datatype": "FP32", "shape": [-1, 3], "batch_axis": 0}
        ]
        reply = server.predict("fixed", json.dumps({"rows": [1, 2, 3, 4]}).encode(), content_type="application/json")
        assert reply.json() == {"output": [2, 4, 6, 8]}
        refused = server.predict("script", b'{"rows": [1]}', content_type="application/json")
        assert (refused.status, "rows: FP32 [4]" in str(refused.body)) == (400, True)
