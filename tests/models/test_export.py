"""``mlserve export`` writes a file that answers as the original does, or says that it does not."""

import json
import subprocess
import sys

import pytest
import torch

LINEAR = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x, y):
        return self.linear(x) + y
"""
# What tracing records is the branch that the sample takes.
BRANCHES = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, y):
        return x * self.scale + y if x.sum() > 0 else y * 5
"""
SAMPLE = {"x": [1, 2, 3, 4], "y": [0.5, 0, -1]}


def model(folder, code):
    names = {}
    exec(code, names)  # the very text that is written beside the weights
    torch.manual_seed(0)
    torch.save(names["Net"]().state_dict(), folder / "net.pt")
    (folder / "model.py").write_text(code)
    (folder / "sample.json").write_text(json.dumps(SAMPLE))


def run(folder, *arguments):
    line = [sys.executable, "-m", "mlserve", *arguments]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_exported_archive_is_served_with_the_same_answers_in_every_batch(tmp_path):
    model(tmp_path, LINEAR)
    code, said = run(tmp_path, "export", "net.pt", "--to", "pt2", "--sample", "sample.json", "--archive")
    assert code == 0, said
    assert "within the tolerance" in said
    checked = []
    for name in ("net.pt", "net.mar"):
        code, answer = run(tmp_path, "run", name, "--input", "sample.json")
        assert code == 0, answer
        checked.append(json.loads(answer[answer.index('{"') : answer.rindex("}") + 1])["output"])
    assert checked[0] == pytest.approx(checked[1], abs=1e-6)
    code, said = run(tmp_path, "validate", "net.mar", "--input", "sample.json", "--batch-size", "5")
    assert code == 0, said


TOKENS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(10, 3)

    def forward(self, x):
        return self.embedding(x).mean(1)
"""


def test_the_archive_keeps_what_the_configuration_says_of_the_inputs(tmp_path):
    model(tmp_path, TOKENS)
    (tmp_path / "net.yaml").write_text("inputs: {x: {dtype: int64, shape: [-1, -1]}}\nbatchSize: 4\n")
    (tmp_path / "sample.json").write_text("[1, 2, 3, 4]")
    code, said = run(
        tmp_path, "export", "net.pt", "--to", "torchscript", "--sample", "sample.json", "-o", "out.pt", "--archive"
    )
    assert code == 0, said
    (tmp_path / "longer.json").write_text("[1, 2, 3, 4, 5, 6]")
    code, said = run(tmp_path, "validate", "net.mar", "-i", "sample.json", "-i", "longer.json")
    assert code == 0, said
    assert "batch of 4" in said


def test_a_rejected_export_leaves_the_files_of_a_good_one_alone(tmp_path):
    model(tmp_path, BRANCHES)
    (tmp_path / "sample.json").write_text(json.dumps({"x": [1, 2, 3], "y": [1, 1, 1]}))
    for name in ("net.xml", "net.bin"):
        (tmp_path / name).write_text("good")
    code, said = run(tmp_path, "export", "net.pt", "--to", "openvino", "--sample", "sample.json", "--force")
    assert code == 1, said
    assert [(tmp_path / name).read_text() for name in ("net.xml", "net.bin")] == ["good", "good"]
    assert {path.name for path in tmp_path.glob("*.rejected")} == {"net.xml.rejected", "net.bin.rejected"}
    model(tmp_path, LINEAR)
    (tmp_path / "net.xml").unlink()
    code, said = run(tmp_path, "export", "net.pt", "--to", "openvino", "--sample", "sample.json")
    assert code == 1, said
    assert "net.bin exists" in said


def test_a_file_that_answers_differently_is_not_called_the_model(tmp_path):
    model(tmp_path, BRANCHES)
    (tmp_path / "sample.json").write_text(json.dumps({"x": [1, 2, 3], "y": [1, 1, 1]}))
    code, said = run(tmp_path, "export", "net.pt", "--to", "torchscript", "--sample", "sample.json", "-o", "out.pt")
    assert code == 1
    assert "ABOVE the tolerance" in said
    assert not (tmp_path / "out.pt").exists()
    assert (tmp_path / "out.pt.rejected").exists()


@pytest.mark.parametrize(("to", "file"), [("onnx", "o.onnx"), ("openvino", "o.xml"), ("torchscript", "o.pt")])
def test_every_target_answers_as_the_original_in_batches_it_was_not_exported_with(tmp_path, to, file):
    model(tmp_path, LINEAR)
    code, said = run(tmp_path, "export", "net.pt", "--to", to, "--sample", "sample.json", "-o", file)
    assert code == 0, said
    assert "within the tolerance" in said
    assert (tmp_path / file).is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["net.pt", "--to", "tflite", "--sample", "sample.json"], "must be one of onnx"),
        (["net.pt", "--to", "tensorrt", "--sample", "sample.json"], "pip install 'mlserve[tensorrt]'"),
        (["net.pt", "--to", "torchscript", "--sample", "sample.json"], "net.pt exists"),
        (["net.pt", "--to", "onnx", "--sample", "sample.json", "-o", "x.bin"], "must end in .onnx"),
        (["net.pt", "--to", "torchscript", "--sample", "sample.json", "-o", "net.pt", "-f"], "net.pt exists"),
        (["net.pt", "--to", "pt2", "--sample", "bad.json"], "input 'y' is missing"),
        (["script.pt", "--to", "pt2", "--sample", "sample.json"], "TorchScript cannot become a .pt2 file"),
    ],
    ids=str,
)
def test_what_cannot_be_exported_says_why_and_leaves_nothing(tmp_path, arguments, said):
    model(tmp_path, LINEAR)
    (tmp_path / "bad.json").write_text('{"x": [1]}')
    if "script.pt" in arguments:
        run(tmp_path, "export", "net.pt", "--to", "torchscript", "--sample", "sample.json", "-o", "script.pt")
    before = {path.name for path in tmp_path.iterdir()}
    code, output = run(tmp_path, "export", *arguments)
    assert code in (1, 2), output
    assert said in " ".join(output.split())
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == before - {"__pycache__"}
