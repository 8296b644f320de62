"""Which providers an ONNX file runs on, and how batches get to a GPU: with a made-up onnxruntime, as builds differ."""

import sys
from types import SimpleNamespace

import pytest

np = pytest.importorskip("numpy")

from mlserve.handlers.formats import Source, open_model  # noqa: E402

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO, CPU = "OpenVINOExecutionProvider", "CPUExecutionProvider"


class Binding:
    def __init__(self, session):
        self.session, self.inputs, self.outputs = session, {}, {}

    def bind_cpu_input(self, name, array):
        assert array.flags.c_contiguous
        self.inputs[name] = array

    def bind_output(self, name, device="cpu", index=0):
        self.outputs[name] = (device, index)

    def copy_outputs_to_cpu(self):
        return [self.inputs["x"] * 2, np.array(["a"] * len(self.inputs["x"]), object)]


class Session:
    made: "Session"

    def __init__(self, path, providers, sess_options):
        self.asked, self.options = providers, sess_options
        self.bound = []
        Session.made = self

    def get_providers(self):
        return [one if isinstance(one, str) else one[0] for one in self.asked]

    def get_inputs(self):
        return [SimpleNamespace(name="x", type="tensor(float)", shape=["batch", 2])]

    def get_outputs(self):
        return [
            SimpleNamespace(name="y", type="tensor(float)", shape=["batch", 2]),
            SimpleNamespace(name="label", type="tensor(string)", shape=["batch"]),
        ]

    def io_binding(self):
        return Binding(self)

    def run_with_iobinding(self, binding):
        self.bound.append(binding)

    def run(self, outputs, inputs):
        return [inputs["x"] * 2, np.array(["a"], object)]


def opened(monkeypatch, tmp_path, available, gpu=None, **options):
    fake = SimpleNamespace(
        __version__="1",
        get_available_providers=lambda: available,
        SessionOptions=lambda: SimpleNamespace(add_session_config_entry=lambda key, value: None),
        InferenceSession=Session,
    )
    state = SimpleNamespace(Fail=KeyError, InvalidArgument=ValueError, RuntimeException=RuntimeError)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setitem(sys.modules, "onnxruntime.capi", SimpleNamespace(onnxruntime_pybind11_state=state))
    monkeypatch.setitem(sys.modules, "onnxruntime.capi.onnxruntime_pybind11_state", state)
    file = tmp_path / "m.onnx"
    file.write_bytes(b"x")
    return open_model("onnx", Source(file, gpu=gpu, threads=3, options=options))


@pytest.mark.parametrize(
    ("available", "gpu", "options", "used"),
    [
        ([CPU], None, {}, [CPU]),
        ([CPU], 0, {}, [CPU]),
        ([TENSORRT, CUDA, CPU], None, {}, [CPU]),
        ([TENSORRT, CUDA, CPU], 1, {}, [CUDA, CPU]),
        ([TENSORRT, CUDA, CPU], 0, {"tensorrt": True}, [TENSORRT, CUDA, CPU]),
        ([OPENVINO, CPU], None, {}, [OPENVINO, CPU]),
        ([OPENVINO, CPU], None, {"openvino": False}, [CPU]),
        ([TENSORRT, CUDA, OPENVINO, CPU], 0, {"tensorrt": True}, [TENSORRT, CUDA, OPENVINO, CPU]),
        ([CUDA, CPU], 0, {"providers": [CPU]}, [CPU]),
        ([CUDA, CPU], None, {"providers": [CUDA]}, [CUDA, CPU]),
    ],
    ids=str,
)
def test_providers_are_taken_in_order_of_what_is_there(monkeypatch, tmp_path, available, gpu, options, used):
    model = opened(monkeypatch, tmp_path, available, gpu, **options)
    assert Session.made.get_providers() == used
    assert model.name == f"onnxruntime 1, {', '.join(used)}"
    assert Session.made.options.intra_op_num_threads == 3
    given = dict(one for one in Session.made.asked if not isinstance(one, str))
    assert all(given[one] == {"device_id": gpu or 0} for one in (CUDA, TENSORRT) if one in used)
    assert OPENVINO not in used or given[OPENVINO] == {"device_type": "CPU", "num_of_threads": "3"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"provider": [CPU]}, "unknown provider; known are providers"),
        ({"providers": [TENSORRT]}, f"asks for {TENSORRT}; this onnxruntime has {CUDA}, {CPU}"),
        ({"openvino": True}, f"asks for {OPENVINO}"),
        ({"tensorrt": True}, f"asks for {TENSORRT}"),
    ],
    ids=str,
)
def test_a_provider_that_is_asked_for_and_not_there_is_no_silent_fallback(monkeypatch, tmp_path, options, said):
    with pytest.raises(ValueError, match=r"onnx in model-config\.yaml") as caught:
        opened(monkeypatch, tmp_path, [CUDA, CPU], 0, **options)
    assert said in str(caught.value)


def test_tensorrt_without_a_gpu_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"tensorrt in model-config\.yaml needs a GPU"):
        opened(monkeypatch, tmp_path, [TENSORRT, CPU], tensorrt=True)


@pytest.mark.parametrize("options", [{}, {"tensorrt": True}], ids=str)
def test_on_a_gpu_outputs_are_bound_there_and_text_is_not(monkeypatch, tmp_path, options):
    model = opened(monkeypatch, tmp_path, [TENSORRT, CUDA, CPU], 1, **options)
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)[:, ::2]
    found = model.infer({"x": rows})
    [binding] = Session.made.bound
    assert binding.outputs == {"y": ("cuda", 1), "label": ("cpu", 0)}
    assert np.array_equal(found["y"], rows * 2)
    assert found["label"].tolist() == ["a", "a"]


def test_on_the_cpu_nothing_is_bound(monkeypatch, tmp_path):
    model = opened(monkeypatch, tmp_path, [CUDA, CPU])
    assert model.infer({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[2, 2]]
    assert Session.made.bound == []
