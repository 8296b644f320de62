"""OpenVINO serves its own files and ONNX files: EfficientNet-Lite0 with its real weights, and a small model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from support.asking import ask, ask_npy, ask_together, largest_batch, refused
from support.networks import PHOTOS, efficientnet, photo, top5
from support.server import LiveServer, running

TOLERANCE = 1e-3  # of logits between -3 and 12: float32 sums in another order
CONFIG = "batchSize: 8\nmaxBatchDelay: 500\nbatchPolicy: window\n"


def small_onnx(path: Path) -> None:
    """``y = 2 x``, of which OpenVINO sees the same names as ONNX Runtime."""
    from onnx import TensorProto, helper

    two = helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])
    shape = ["batch", 3]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "doubles",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [two],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    store = tmp_path_factory.mktemp("openvino")
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn of what they themselves do
        program = torch.export.export(efficientnet(), (torch.zeros(2, 3, 224, 224),), dynamic_shapes=(batch,))
        model = openvino.convert_model(program)
    model.inputs[0].set_names({"image"})
    model.outputs[0].set_names({"logits"})
    openvino.save_model(model, store / "lite0.xml", compress_to_fp16=False)
    (store / "lite0.yaml").write_text(CONFIG)
    small_onnx(store / "doubles.onnx")
    (store / "doubles.yaml").write_text("runtime: openvino\n" + CONFIG)
    with running(store / "run", "lite0=lite0.xml", "doubles=doubles.onnx", store=store) as live:
        yield live


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    network = efficientnet()
    with torch.inference_mode():
        return {name: network(torch.from_numpy(photo(name))[None])[0].numpy() for name in PHOTOS}


def test_an_openvino_file_answers_as_the_network_it_was_made_from(server, expected):
    for name in PHOTOS:
        answer = np.array(ask_npy(server, "lite0", photo(name))["logits"], np.float32)
        np.testing.assert_allclose(answer, expected[name], atol=TOLERANCE, rtol=0)
        assert top5(answer) == top5(expected[name])


def test_requests_that_come_together_are_one_batch_and_each_gets_its_own_answer(server, expected):
    names = [*PHOTOS, *PHOTOS]
    answers = ask_together(server, "lite0", [{"image": photo(name).tolist()} for name in names])
    for name, answer in zip(names, answers, strict=True):
        np.testing.assert_allclose(answer["logits"], expected[name], atol=TOLERANCE, rtol=0)
    assert largest_batch(server, "lite0") > 1


def test_an_onnx_file_is_served_by_openvino_when_the_configuration_says_so(server):
    assert ask(server, "doubles", {"x": [1, 2, 3]}) == {"y": [2.0, 4.0, 6.0]}
    answers = ask_together(server, "doubles", [{"x": [at, 1, 2]} for at in range(16)])
    assert answers == [{"y": [2.0 * at, 2.0, 4.0]} for at in range(16)]
    assert largest_batch(server, "doubles") > 1
    described = server.request("GET", "/models/doubles?customized=true", api="management").json()[0]
    assert "openvino" in str(described)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"pixels": [1, 2, 3]}, "input 'x' is missing; unknown input 'pixels': the model takes x: FP32 [3]"),
        ({"x": [1, 2]}, "Input 'x' has the shape [2]: the model takes x: FP32 [3]"),
        ({"x": ["a", "b", "c"]}, "Input 'x' is text: expected x: FP32 [3]"),
    ],
)
def test_what_the_model_does_not_take_is_refused_with_what_it_takes(server, item, said):
    assert refused(server, "doubles", item) == said


def test_a_length_that_the_file_leaves_open_and_the_weights_do_not_is_refused(tmp_path):
    from onnx import TensorProto, helper, numpy_helper

    from mlserve.handler import PredictionError
    from mlserve.handlers.formats import Source, open_model

    float32 = TensorProto.FLOAT
    weights = numpy_helper.from_array(np.ones((10, 2), np.float32), "w")
    given = helper.make_tensor_value_info("x", float32, ["batch", "any"])
    answer = helper.make_tensor_value_info("y", float32, ["batch", 2])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "sums", [given], [answer], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    model = open_model("openvino", Source(tmp_path / "m.onnx"))
    model.check({"x": np.ones((1, 10), np.float32)})
    assert model.infer({"x": np.ones((3, 10), np.float32)})["y"].tolist() == [[10, 10]] * 3
    with pytest.raises(PredictionError, match=r"does not take x \[3\]: Incompatible MatMul") as error:
        model.check({"x": np.ones((1, 3), np.float32)})
    assert error.value.status == 400


def test_a_file_that_is_no_model_says_so_at_load(tmp_path):
    from mlserve.handlers.formats import Source, open_model

    (tmp_path / "m.xml").write_text("<net name='x' version='11'><layers><layer/></layers></net>")
    with pytest.raises(ValueError, match=r"m\.xml is not a model that OpenVINO can read"):
        open_model("openvino", Source(tmp_path / "m.xml"))


def test_a_device_that_is_not_there_is_named_with_those_that_are(tmp_path):
    from mlserve.handlers.formats import Source, open_model

    small_onnx(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"cannot compile m\.onnx for NPU, it has \['CPU'"):
        open_model("openvino", Source(tmp_path / "m.onnx", options={"device": "NPU"}))


def test_bfloat16_comes_and_goes_as_float32(tmp_path):
    from openvino import opset13 as ops

    from mlserve.handlers.formats import Source, open_model

    x = ops.parameter([-1, 3], openvino.Type.bf16, name="x")
    doubled = ops.multiply(x, ops.constant(np.array(2, np.float32), dtype=openvino.Type.bf16))
    openvino.save_model(openvino.Model([doubled], [x]), tmp_path / "m.xml", compress_to_fp16=False)
    model = open_model("openvino", Source(tmp_path / "m.xml"))
    (given,), (answered,) = model.signature
    assert (given.dtype, answered.dtype) == ("float32", "float32")
    found = model.infer({given.name: np.array([[1.1, 2, 3]], np.float32)})[answered.name]
    np.testing.assert_allclose(found, [[2.2, 4, 6]], rtol=2**-7)  # 8 bits of mantissa, which OpenVINO cuts off
