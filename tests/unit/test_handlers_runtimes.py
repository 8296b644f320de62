"""Models beside plain torch modules: ONNX files, exported programs, and what ``pt2`` may ask for."""

import importlib
import sys
import types

import pytest

from mlserve.handler import Context
from mlserve.handlers.base import BaseHandler
from mlserve.handlers.loading import compile_model
from mlserve.handlers.runtimes import wants_compiled

torch = pytest.importorskip("torch")


def loaded(folder, file, config=None):
    context = Context("m", str(folder), {"model": {"serializedFile": file}}, model_yaml_config=config)
    handler = BaseHandler()
    handler.initialize(context)
    return handler, context


class Session:
    """What onnxruntime gives for a file."""

    def __init__(self, path, providers, sess_options):
        self.path, self.providers, self.options = path, providers, sess_options

    def get_providers(self):
        return self.providers

    def get_inputs(self):
        return [types.SimpleNamespace(name="x")]

    def run(self, names, inputs):
        return [inputs["x"] * 2]


class Options(types.SimpleNamespace):
    def add_session_config_entry(self, key, value):
        setattr(self, key, value)


@pytest.fixture
def onnxruntime(monkeypatch):
    module = types.ModuleType("onnxruntime")
    module.SessionOptions = Options
    module.InferenceSession = Session
    monkeypatch.setitem(sys.modules, "onnxruntime", module)


def test_an_onnx_file_is_run_by_its_session(tmp_path, onnxruntime, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (tmp_path / "m.onnx").write_bytes(b"x")
    handler, context = loaded(tmp_path, "m.onnx")
    assert handler.model.options.intra_op_num_threads == 3
    spin = getattr(handler.model.options, "session.intra_op.spin_duration_us")
    assert int(spin) < 1000, "a thread that waits must leave its core to the front end"
    assert handler.model.providers == ["CPUExecutionProvider"]
    assert handler.handle([{"body": [1, 2]}, {"body": [3, 4]}], context) == [[2.0, 4.0], [6.0, 8.0]]


def test_a_real_onnx_file_is_read(tmp_path):
    pytest.importorskip("onnxruntime")
    helper = pytest.importorskip("onnx.helper")
    onnx = importlib.import_module("onnx")
    tensor = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", tensor[:1], tensor[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    handler, context = loaded(tmp_path, "m.onnx")
    assert handler.handle([{"body": [1, 2]}], context) == [[-1.0, -2.0]]


def test_a_file_that_is_not_onnx_is_named(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "m.onnx").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"m\.onnx is not an ONNX file"):
        loaded(tmp_path, "m.onnx")


class Double(torch.nn.Module):
    def forward(self, x):
        return x * 2


def test_an_exported_program_is_served(tmp_path):
    torch.export.save(torch.export.export(Double(), (torch.zeros(1, 2),)), tmp_path / "m.pt2")
    handler, context = loaded(tmp_path, "m.pt2")
    assert handler.handle([{"body": [1, 2]}], context) == [[2.0, 4.0]]


@pytest.mark.parametrize("file", ["m.pt2", "m.so"])
def test_a_missing_file_is_named(tmp_path, file):
    with pytest.raises(ValueError, match=f"names {file}, but the archive has no such file"):
        loaded(tmp_path, file)


def test_a_file_that_is_no_program_is_named(tmp_path):
    (tmp_path / "m.pt2").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"m\.pt2 is not a \.pt2 file"):
        loaded(tmp_path, "m.pt2")


@pytest.mark.parametrize(
    ("pt2", "text"),
    [
        ("eager", "backend eager"),
        ({"backend": "eager", "dynamic": True}, "backend eager, dynamic True"),
        ({"compile": {"enable": True, "backend": "eager"}}, "backend eager"),
        ({"compile": {"enable": False, "backend": "eager"}}, ""),
        ({"compile": {"backend": "eager"}}, ""),
    ],
)
def test_the_log_says_how_a_model_was_compiled(pt2, text, caplog):
    caplog.set_level("INFO")
    model = compile_model(Double(), pt2)
    assert type(model).__name__ == ("OptimizedModule" if text else "Double")
    said = [record.getMessage() for record in caplog.records]
    assert said == ([f"Compiled model with {text}"] if text else [])


@pytest.mark.parametrize("backend", ["nope", "openvino"])
def test_a_backend_that_is_not_there_is_said_and_the_model_served_as_it_is(backend, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    model = Double()
    assert compile_model(model, backend) is model
    assert f"with backend {backend} failed, serving it uncompiled" in caplog.text


@pytest.mark.parametrize(
    ("pt2", "wanted"), [({"export": {"aot_compile": True}}, True), ({"export": {}}, False), ("inductor", False)]
)
def test_ahead_of_time_is_read_from_the_configuration(pt2, wanted):
    assert wants_compiled(pt2) is wanted
