"""ONNX Runtime serves EfficientNet-Lite0 with its real weights: as a bare file, and by the handler name ``onnx``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.asking import ask, ask_npy, ask_together, largest_batch, refused
from support.networks import PHOTOS, efficientnet, photo, top5
from support.server import LiveServer, running

from mlserve.archive.packing import pack
from mlserve.handlers.formats import Source, open_model

TOLERANCE = 1e-3  # of logits between -3 and 12: float32 sums in another order
CONFIG = "batchSize: 8\nmaxBatchDelay: 500\nbatchPolicy: window\n"
TAKES = "the model takes image: FP32 [3, 224, 224]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    store = tmp_path_factory.mktemp("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn of what they themselves do
        torch.onnx.export(
            efficientnet(),
            (torch.zeros(1, 3, 224, 224),),
            str(store / "lite0.onnx"),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(store / "lite0.ort")
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    )  # higher ones are a CPU's own
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(store / "lite0.onnx"), options, providers=["CPUExecutionProvider"])
    (store / "lite0.yaml").write_text(CONFIG)
    file = store / "lite0.onnx"
    pack(model_name="packed", version="1.0", handler="onnx", serialized_file=file, export_path=store)
    with running(store / "run", "lite0=lite0.onnx", "ort=lite0.ort", "packed.mar", store=store) as live:
        yield live


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    network = efficientnet()
    with torch.inference_mode():
        return {name: network(torch.from_numpy(photo(name))[None])[0].numpy() for name in PHOTOS}


@pytest.mark.parametrize("model", ["lite0", "ort", "packed"])
def test_an_onnx_file_answers_as_the_network_it_was_made_from(server, expected, model):
    for name in PHOTOS:
        answer = np.array(ask_npy(server, model, photo(name))["logits"], np.float32)
        np.testing.assert_allclose(answer, expected[name], atol=TOLERANCE, rtol=0)
        assert top5(answer) == top5(expected[name])


def test_several_rows_in_one_file_are_answered_by_as_many(server, expected):
    answer = ask_npy(server, "lite0", np.stack([photo(name) for name in PHOTOS]))["logits"]
    np.testing.assert_allclose(answer, list(expected.values()), atol=TOLERANCE, rtol=0)


def test_requests_that_come_together_are_one_batch_and_each_gets_its_own_answer(server, expected):
    names = [*PHOTOS, *PHOTOS]
    answers = ask_together(server, "lite0", [{"image": photo(name).tolist()} for name in names])
    for name, answer in zip(names, answers, strict=True):
        np.testing.assert_allclose(answer["logits"], expected[name], atol=TOLERANCE, rtol=0)
    assert largest_batch(server, "lite0") > 1


def test_the_open_inference_style_is_answered_in_its_own(server, expected):
    item = {"name": "image", "shape": [1, 3, 224, 224], "datatype": "FP32", "data": photo("cat").ravel().tolist()}
    (found,) = ask(server, "lite0", {"inputs": [item]})["outputs"]
    assert (found["name"], found["shape"], found["datatype"]) == ("logits", [1, 1000], "FP32")
    np.testing.assert_allclose(found["data"], expected["cat"], atol=TOLERANCE, rtol=0)


def test_what_the_model_does_not_take_is_refused_with_what_it_takes(server):
    assert refused(server, "lite0", {"x": [1]}) == f"input 'image' is missing; unknown input 'x': {TAKES}"
    assert refused(server, "lite0", {"image": [[1, 2], [3, 4]]}) == f"Input 'image' has the shape [2, 2]: {TAKES}"
    assert refused(server, "lite0", ["photo"]) == "Input 'image' is text: expected image: FP32 [3, 224, 224]"


def test_describe_names_the_runtime_and_the_shapes(server):
    described = str(server.request("GET", "/models/lite0?customized=true", api="management").json()[0])
    assert "onnxruntime" in described
    assert "'shape': [-1, 3, 224, 224]" in described


def test_a_file_that_is_no_model_says_so_at_load(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"m\.onnx is not an ONNX file that onnxruntime can run"):
        open_model("onnx", Source(tmp_path / "m.onnx"))


def test_probabilities_as_maps_are_refused_at_load_with_the_option_that_avoids_them(tmp_path):
    make = onnx.helper
    value = make.make_tensor_value_info
    scores = value("scores", onnx.TensorProto.FLOAT, ["n", 2])
    maps = make.make_map_type_proto(onnx.TensorProto.INT64, make.make_tensor_type_proto(onnx.TensorProto.FLOAT, []))
    output = make.make_value_info("probabilities", make.make_sequence_type_proto(maps))
    node = make.make_node("ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    opsets = [make.make_opsetid("", 15), make.make_opsetid("ai.onnx.ml", 3)]
    graph = make.make_graph([node], "g", [scores], [output])
    onnx.save(make.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"'probabilities' .* is seq\(map\(.*options=\{'zipmap': False\}"):
        open_model("onnx", Source(tmp_path / "m.onnx"))
