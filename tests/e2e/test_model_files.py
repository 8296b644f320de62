"""A model file and nothing else: served with one command, by what the file itself says of its inputs."""

import io
import json
import shutil
import subprocess
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tests.support.server import command, running

JSON = {"content_type": "application/json"}
CODE = """
import torch

class TwoInputs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x, y):
        return self.linear(x) + y
"""
KINDS = ("exported", "fixed", "script", "eager")


@pytest.fixture(scope="module")
def module():
    names = {}
    exec(CODE, names)  # the very text that is written beside the weights
    torch.manual_seed(0)
    return names["TwoInputs"]().eval()


@pytest.fixture(scope="module")
def files(module, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "eager").mkdir()
    rows = torch.export.Dim("rows", min=1, max=64)
    example = (torch.randn(2, 4), torch.randn(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls both of these ways deprecated, in its own code or in ours
        exported = torch.export.export(module, example, dynamic_shapes={"x": {0: rows}, "y": {0: rows}})
        torch.export.save(exported, folder / "exported.pt2")
        fixed = torch.export.export(module, (torch.randn(3, 4), torch.randn(3, 3)))
        torch.export.save(fixed, folder / "fixed.pt2")
        torch.jit.trace(module, example).save(folder / "script.pt")
    torch.save(module.state_dict(), folder / "eager" / "eager.pt")
    (folder / "eager" / "model.py").write_text(CODE)
    (folder / "eager" / "eager.yaml").write_text(
        "inputs: {x: {dtype: float32, shape: [-1, 4]}, y: {dtype: float32, shape: [-1, 3]}}\nwarmup: true\n"
    )
    return [folder / "exported.pt2", folder / "fixed.pt2", folder / "script.pt", folder / "eager" / "eager.pt"]


@pytest.fixture(scope="module")
def server(files, tmp_path_factory):
    models = [f"{path.stem}={path}" for path in files]
    with running(tmp_path_factory.mktemp("server"), *models, settings={"DEFAULTS_BATCH_SIZE": 4}) as live:
        yield live


def expected(module, x, y):
    with torch.inference_mode():
        return module(torch.tensor([x], dtype=torch.float32), torch.tensor([y], dtype=torch.float32))[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_alone_answers_with_the_models_own_numbers(server, module, kind):
    x, y = [1.0, -2.0, 3.5, 0.0], [0.5, 0.25, -1.0]
    reply = server.predict(kind, json.dumps({"x": x, "y": y}).encode(), **JSON)
    assert reply.status == 200, reply
    assert reply.json() == {"output": pytest.approx(expected(module, x, y), abs=1e-5)}


@pytest.mark.parametrize("kind", KINDS)
def test_requests_that_share_a_batch_get_their_own_answers(server, module, kind):
    def ask(index):
        body = json.dumps({"x": [index, 1, 2, 3], "y": [0, 0, index]}).encode()
        return server.predict(kind, body, **JSON).json()["output"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(24)))
    for index, answer in enumerate(answers):
        assert answer == pytest.approx(expected(module, [index, 1, 2, 3], [0, 0, index]), abs=1e-4)


def test_rows_sent_as_open_inference_or_as_arrays_are_the_same_rows(server, module):
    x, y = np.arange(8, dtype=np.float32).reshape(2, 4), np.ones((2, 3), np.float32)
    tensors = [
        {"name": name, "shape": list(array.shape), "datatype": "FP32", "data": array.ravel().tolist()}
        for name, array in (("x", x), ("y", y))
    ]
    file = io.BytesIO()
    np.savez(file, x=x, y=y)
    wanted = [expected(module, *pair) for pair in zip(x.tolist(), y.tolist(), strict=True)]
    [output] = server.predict("exported", json.dumps({"inputs": tensors}).encode(), **JSON).json()["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == ("output", [2, 3], "FP32")
    assert output["data"] == pytest.approx([*wanted[0], *wanted[1]], abs=1e-5)
    found = server.predict("exported", file.getvalue(), content_type="application/x-npz")
    assert found.json()["output"] == [pytest.approx(row, abs=1e-5) for row in wanted]


@pytest.mark.parametrize("kind", ["exported", "fixed", "eager"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"x": [1, 2, 3], "y": [1, 2, 3]}, "Input 'x' has the shape [3]: the model takes x: FP32 [4], y: FP32 [3]"),
        ({"x": [1, 2, 3, 4]}, "input 'y' is missing"),
        ({"x": [1, 2, 3, 4], "y": ["a", "b", "c"]}, "Input 'y' is text"),
    ],
    ids=["shape", "name", "dtype"],
)
def test_what_does_not_fit_is_refused_with_what_was_expected(server, kind, body, said):
    reply = server.predict(kind, json.dumps(body).encode(), **JSON)
    assert reply.status == 400
    assert said in reply.json()["message"]


def test_a_wrong_shape_is_refused_by_a_file_that_does_not_say_what_it_takes(server):
    body = json.dumps({"x": [1, 2, 3], "y": [1, 2, 3]}).encode()
    reply = server.predict("script", body, **JSON)
    assert reply.status == 400
    said = reply.json()["message"]
    assert said.startswith(
        "script does not take x [3] float32, y [3] float32: mat1 and mat2 shapes cannot be multiplied"
    )


def test_describe_lists_inputs_and_outputs(server):
    signature = server.describe("exported")["signature"]
    assert "torch.export" in signature["runtime"]
    assert [(one["name"], one["datatype"], one["shape"]) for one in signature["inputs"]] == [
        ("x", "FP32", [-1, 4]),
        ("y", "FP32", [-1, 3]),
    ]
    assert [(one["name"], one["shape"]) for one in signature["outputs"]] == [("output", [-1, 3])]
    assert server.describe("fixed")["signature"]["inputs"][0]["shape"] == [3, 4]


def test_a_warm_up_is_over_before_the_worker_is_ready(server):
    log = server.log_text()
    assert log.index("warmed up in") < log.index("model eager is ready")


def test_all_loads_archives_alone_where_bare_files_are_switched_off(files, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    shutil.copy(files[2], store)
    (tmp_path / "handler.py").write_text("def handle(data, context):\n    return ['up'] * len(data)\n")
    line = [*command(), "archive", "--model-name", "upper", "--version", "1.0", "--handler", "handler.py"]
    subprocess.run([*line, "--export-path", "store"], cwd=tmp_path, check=True, capture_output=True)
    with running(tmp_path, "all", store=store, settings={"MODELS_BARE_FILES": "false"}) as live:
        assert [model["modelName"] for model in live.manage("GET", "/models")["models"]] == ["upper"]
