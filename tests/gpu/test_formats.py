"""Runtimes on a GPU: the worker uses the one it was given, and answers what the library answers on the CPU.

Each needs its package for GPUs: onnxruntime-gpu, torch and xgboost with CUDA, tensorflow[and-cuda].
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from support.asking import ask, ask_together
from support.server import running

pytestmark = pytest.mark.gpu

TOLERANCE = 1e-2  # TF32 has 10 bits of mantissa; the values are sums of 4 products below 1
CONFIG = "batchSize: 8\nmaxBatchDelay: 200\nbatchPolicy: window\n"
ROWS = [[0.1 * at, 0.2, 0.3, 0.4] for at in range(8)]
EAGER = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x)
"""


def write_onnx(path: Path) -> Any:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return np.array(ROWS, np.float32) @ weights


def write_pt2(path: Path) -> Any:
    import torch

    torch.manual_seed(0)
    network = torch.nn.Linear(4, 3).eval()
    rows = torch.tensor(ROWS)
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    torch.export.save(torch.export.export(network, (rows,), dynamic_shapes=shapes), str(path))
    return network(rows).detach().numpy()


def write_torchscript(path: Path) -> Any:
    import torch

    torch.manual_seed(0)
    network = torch.nn.Linear(4, 3).eval()
    torch.jit.script(network).save(str(path))
    return network(torch.tensor(ROWS)).detach().numpy()


def write_eager(path: Path) -> Any:
    import torch

    torch.manual_seed(0)
    network = torch.nn.Linear(4, 3).eval()
    torch.save({f"linear.{name}": value for name, value in network.state_dict().items()}, path)
    path.with_name("model.py").write_text(EAGER)
    return network(torch.tensor(ROWS)).detach().numpy()


def write_compiled(path: Path) -> Any:
    return write_eager(path)  # the configuration says that it is to be compiled


def write_aotinductor(path: Path) -> Any:
    import torch

    torch.manual_seed(0)
    network = torch.nn.Linear(4, 3).eval()
    expected = network(torch.tensor(ROWS)).detach().numpy()
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(network.cuda(), (torch.tensor(ROWS).cuda(),), dynamic_shapes=shapes)
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    return expected


def write_ubj(path: Path) -> Any:
    import numpy as np
    import xgboost

    rows = np.random.default_rng(0).random((200, 4))
    booster = xgboost.train({"max_depth": 3}, xgboost.DMatrix(rows, rows.sum(1)), num_boost_round=10)
    booster.save_model(path)
    return booster.predict(xgboost.DMatrix(np.array(ROWS)))


def write_savedmodel(path: Path) -> Any:
    import numpy as np
    import tensorflow as tf

    class Product(tf.Module):
        def __init__(self) -> None:
            self.weights = tf.Variable(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3))

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def __call__(self, x: Any) -> dict[str, Any]:
            return {"y": x @ self.weights}

    model = Product()
    tf.saved_model.save(model, str(path), {"serving_default": model.__call__})
    (path / "model-config.yaml").write_text(CONFIG)
    return np.array(ROWS, np.float32) @ model.weights.numpy()


@pytest.mark.parametrize(
    ("package", "file", "write", "shown"),
    [
        ("onnxruntime", "m.onnx", write_onnx, "CUDAExecutionProvider"),
        ("torch", "m.pt2", write_pt2, "cuda:0"),
        ("torch", "m.pt2", write_aotinductor, "cuda:0"),
        ("torch", "m.ts", write_torchscript, "cuda:0"),
        ("torch", "m.pth", write_eager, "eager, cuda:0"),
        ("torch", "m.pth", write_compiled, "compiled, cuda:0"),
        ("xgboost", "m.ubj", write_ubj, "cuda:0"),
        ("tensorflow", "m", write_savedmodel, "GPU 0"),
    ],
)
def test_a_model_runs_on_the_worker_s_gpu_and_answers_as_on_the_cpu(tmp_path, package, file, write, shown):
    import numpy as np

    pytest.importorskip(package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = write(tmp_path / file)
    named = "inputs: {x: {dtype: float32, shape: [-1, 4]}}\n" if package == "torch" and write is not write_pt2 else ""
    compiled = "pt2: {backend: inductor}\n" if write is write_compiled else ""
    (tmp_path / "m.yaml").write_text(CONFIG + named + compiled)
    with running(tmp_path / "run", f"m={file}", store=tmp_path, settings={"GPU_IDS": "0"}) as server:
        described = server.request("GET", "/models/m?customized=true", api="management").json()[0]
        assert shown in str(described)
        answers = ask_together(server, "m", ROWS)
        found = [next(iter(answer.values())) for answer in answers]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)
        np.testing.assert_allclose(next(iter(ask(server, "m", ROWS[3]).values())), expected[3], atol=TOLERANCE)


def test_a_batch_replays_the_cuda_graph_that_holds_it(tmp_path):
    import numpy as np

    pytest.importorskip("torch")
    expected = write_eager(tmp_path / "m.pth")
    (tmp_path / "m.yaml").write_text(
        CONFIG + "inputs: {x: {dtype: float32, shape: [-1, 4]}}\ntorch: {cuda_graphs: true}\n"
    )
    with running(tmp_path / "run", "m=m.pth", store=tmp_path, settings={"GPU_IDS": "0"}) as server:
        log = server.log_text()
        assert all(f"captured a CUDA graph of {size} rows" in log for size in (1, 2, 4, 8))
        for count in (1, 3, 8):
            found = [next(iter(answer.values())) for answer in ask_together(server, "m", ROWS[:count])]
            np.testing.assert_allclose(found, expected[:count], atol=TOLERANCE)
        assert server.log_text().count("captured a CUDA graph") == 4  # requests capture none
