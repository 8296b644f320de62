"""Models that don't say what they take refuse a wrong shape, dtype or index with 400, and no other item suffers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from support.asking import JSON, ask, refused
from support.server import LiveServer, running

CONFIG = "batchSize: 8\nmaxBatchDelay: 500\nbatchPolicy: window\n"
EAGER = """
import torch

class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(10, 2)

    def forward(self, x):
        return self.linear(x)
"""
TEN = {"x": [0.5] * 10}


def open_onnx() -> onnx.ModelProto:
    """``[any] x [10, 2]``: the file says that any length will do."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [10, 2], [1.0] * 20)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "any"])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "sums", [given], [answer], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    store = tmp_path_factory.mktemp("misfits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript itself
        torch.jit.script(torch.nn.Sequential(torch.nn.Linear(10, 2))).save(store / "script.pt")
        torch.jit.script(torch.nn.Embedding(10, 4)).save(store / "ids.pt")
    eager = store / "eager"
    eager.mkdir()
    (eager / "model.py").write_text(EAGER)
    torch.save({f"linear.{name}": value for name, value in torch.nn.Linear(10, 2).state_dict().items()}, eager / "w.pt")
    onnx.save(open_onnx(), store / "sums.onnx")
    (store / "ids.yaml").write_text("inputs: {input: {dtype: int64, shape: [-1, 3]}}\n" + CONFIG)
    (store / "script.yaml").write_text(CONFIG)
    models = ("script=script.pt", "ids=ids.pt", f"eager={eager / 'w.pt'}", "sums=sums.onnx")
    with running(store / "run", *models, store=store) as live:
        yield live


@pytest.mark.parametrize(("model", "name"), [("script", "input"), ("eager", "x"), ("sums", "x")])
def test_a_wrong_shape_is_refused_with_the_reason_and_what_was_answered(server, model, name):
    said = refused(server, model, {name: [1, 2, 3]})
    assert said.startswith(f"{model} does not take {name} [3] float32: ")
    assert "10x2" in said or "dimension mismatch" in said
    assert "It has answered nothing so far: inputs: in model-config.yaml" in said
    ask(server, model, {name: TEN["x"]})
    assert refused(server, model, {name: [1, 2, 3]}).endswith(f"It has answered {name} [10] float32")


def test_a_wrong_dtype_is_refused(server):
    item = {"inputs": [{"name": "x", "shape": [1, 10], "datatype": "INT64", "data": [1] * 10}]}
    assert "eager does not take x [10] int64: mat1 and mat2 must have the same dtype" in refused(server, "eager", item)


def test_the_rest_of_a_batch_is_answered(server):
    items = [[0, 1, 2], [7, 8, 99], [3, 4, 5], [6, 7, 8]]

    def send(ids: list[int]) -> tuple[int, str]:
        reply = server.request("POST", "/predictions/ids", json.dumps(ids).encode(), JSON)
        return reply.status, reply.body.decode()

    with ThreadPoolExecutor(len(items)) as threads:
        answers = list(threads.map(send, items))
    assert [status for status, _ in answers] == [200, 400, 200, 200]
    assert "ids does not take input [3] int64: index out of range in self" in answers[1][1]
    assert "its items one by one" not in server.log_text()  # which would decode every item again


def test_the_first_refusal_leaves_its_traceback_in_the_log(server):
    refused(server, "script", [[1, 2], [3, 4]])
    assert server.log_text().count("script refused an input; tracebacks of further ones are not logged") == 1
    assert "TorchScript interpreter" in server.log_text()
