"""BaseHandler: what it loads, what it refuses to load and why, and how a batch goes through the hooks."""

import json
import sys
import warnings

import pytest

from mlserve.handler import Context, PredictionError, RequestInfo
from mlserve.handlers.base import BaseHandler

torch = pytest.importorskip("torch")

NET = """
import torch

class Double(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))
        self.dropout = torch.nn.Dropout(0.9)

    def forward(self, x):
        return self.dropout(x * self.factor)
"""


@pytest.fixture
def archive(tmp_path):
    """A folder like an unpacked archive, and a context that names its files."""

    def made(net="", state=None, names=None, config=None, gpu_id=None, **model):
        if net:
            (tmp_path / "net.py").write_text(net)
            model.setdefault("modelFile", "net.py")
        if state is not None:
            torch.save(state, tmp_path / "w.pt")
            model.setdefault("serializedFile", "w.pt")
        if names is not None:
            (tmp_path / "index_to_name.json").write_text(json.dumps(names))
        manifest = {"model": {"modelName": "m", **model}}
        return Context("m", str(tmp_path), manifest, gpu_id=gpu_id, model_yaml_config=config)

    yield made
    for name in [
        name for name, module in sys.modules.items() if getattr(module, "__file__", None) == f"{tmp_path}/net.py"
    ]:
        del sys.modules[name]


def loaded(context, cls=BaseHandler):
    handler = cls()
    handler.initialize(context)
    return handler


def test_eager_code_with_weights_answers_in_eval_mode(archive):
    context = archive(NET, {"factor": torch.tensor(3.0)}, names={"0": "x"})
    handler = loaded(context)
    assert handler.handle([{"body": [1, 2]}, {"data": b"[10, 20.5]"}], context) == [[3.0, 6.0], [30.0, 61.5]]
    assert not handler.model.training
    assert handler.initialized
    assert handler.mapping == {"0": "x"}
    assert str(handler.device) == "cpu"


def test_torchscript_is_loaded_without_a_warning(archive, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # since torch 2.13 making one warns as well
        scripted = torch.jit.trace(torch.nn.ReLU(), torch.zeros(2))
    scripted.save(str(tmp_path / "s.pt"))
    context = archive(serializedFile="s.pt")
    assert loaded(context).handle([{"body": [-1, 2]}], context) == [[0.0, 2.0]]


def test_weights_are_never_unpickled_as_code(archive, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    context = archive(NET)
    torch.save({"factor": Evil()}, tmp_path / "w.pt")
    context.manifest["model"]["serializedFile"] = "w.pt"
    with pytest.raises(ValueError, match=r"w\.pt cannot be read as a state_dict"):
        loaded(context)
    assert not (tmp_path / "pwned").exists()


TWO = NET + "\nclass Other(torch.nn.Module):\n    pass\n"


def test_the_model_class_can_be_chosen_where_a_file_has_several(archive):
    context = archive(TWO, config={"handler": {"model_class": "Double"}})
    assert loaded(context).handle([{"body": [1]}], context) == [[2.0]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "holds no model"),
        ({"net": TWO}, r"exactly one nn\.Module class, found \['Double', 'Other'\]"),
        ({"net": "x = 1"}, "found none"),
        ({"net": TWO, "config": {"handler": {"model_class": "Nope"}}}, "no nn.Module called Nope"),
        ({"net": NET, "state": {"wrong": torch.zeros(1)}}, "does not fit Double"),
        ({"net": NET, "state": torch.zeros(1)}, "a state_dict .* was expected"),
        ({"modelFile": "gone.py"}, r"names gone\.py, but the archive has no such file"),
        ({"state": {"a": torch.zeros(1)}}, "is not a TorchScript file.*--model-file"),
        ({"net": NET, "config": {"pt2": {"export": {"aot_compile": True}}}}, "pt2: export .* not supported"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_what_was_expected(archive, given, message):
    with pytest.raises(ValueError, match=message):
        loaded(archive(**given))


def test_an_onnx_file_is_refused_with_the_extra_that_reads_it(archive, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot load \.onnx files.*mlserve\[onnx\]"):
        loaded(archive(serializedFile="m.onnx"))


def test_a_model_file_named_like_a_loaded_module_does_not_replace_it(archive, tmp_path):
    (tmp_path / "json.py").write_text(NET)
    context = archive(modelFile="json.py")
    assert loaded(context).handle([{"body": [1]}], context) == [[2.0]]
    assert sys.modules["json"] is json


def test_a_directory_without_a_manifest_is_served_by_the_names_of_its_files(tmp_path):
    (tmp_path / "model.py").write_text(NET)
    torch.save({"factor": torch.tensor(5.0)}, tmp_path / "any.pth")
    context = Context("m", str(tmp_path), {})
    assert loaded(context).handle([{"body": [1]}], context) == [[5.0]]
    (tmp_path / "other.pt").touch()
    with pytest.raises(ValueError, match=r"several weights: any\.pth, other\.pt"):
        loaded(context)


def test_pt2_compiles_the_model(archive):
    context = archive(NET, config={"pt2": {"compile": {"enable": True, "backend": "eager"}}})
    handler = loaded(context)
    assert type(handler.model).__name__ == "OptimizedModule"
    assert handler.handle([{"body": [1]}], context) == [[2.0]]


def test_a_gpu_that_torch_cannot_see_is_said_and_the_cpu_taken(archive, caplog):
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    handler = loaded(archive(NET, gpu_id=3))
    assert str(handler.device) == "cpu"
    assert "GPU 3" in caplog.text


def test_only_the_item_that_is_no_array_is_refused(archive):
    context = archive(NET)
    answers = loaded(context).handle([{"body": [1]}, {"body": b"{oops"}, {"other": 1}, {"body": [2]}], context)
    assert [answers[0], answers[3]] == [[2.0], [4.0]]
    assert [(answer.status, type(answer)) for answer in answers[1:3]] == [(400, PredictionError)] * 2
    assert "['other']" in answers[2].message


def test_whole_numbers_stay_whole_for_models_that_look_them_up(archive):
    net = "import torch\nclass E(torch.nn.Embedding):\n    def __init__(self):\n        super().__init__(4, 1)\n"
    context = archive(net, {"weight": torch.arange(4.0)[:, None]}, config={"handler": {"input_dtype": "int64"}})
    assert loaded(context).handle([{"body": [3, 1]}], context) == [[[3.0], [1.0]]]


def test_arrays_of_an_envelope_become_what_the_configuration_says_and_else_stay_as_they_are(archive):
    chosen = loaded(archive(NET, config={"handler": {"input_dtype": "float32"}}))
    assert chosen.preprocess([[1], [2]]).dtype == torch.float32
    assert loaded(archive(NET)).preprocess([[1], [2]]).dtype == torch.int64


class Hooks(BaseHandler):
    def initialize(self, context):
        self.seen = []

    def preprocess(self, data):
        return [row["body"] for row in data]

    def inference(self, data):
        self.seen.append(data)
        return data

    def postprocess(self, data):
        return [value + 1 for value in data]

    def get_insights(self, tensor_data, raw_data, target=0):
        return [f"because {row['body']}" for row in raw_data]


def test_every_phase_is_timed_once_per_batch():
    context = Context("m", "")
    assert loaded(context, Hooks).handle([{"body": 1}, {"body": 2}], context) == [2, 3]
    phases = context.phases
    assert all(seconds > 0 for seconds in (phases.preprocess, phases.inference, phases.postprocess))


def test_explanations_and_predictions_of_one_batch_each_get_their_own():
    context = Context("m", "")
    context.begin([RequestInfo("a"), RequestInfo("b", (), {"explain": "True"})])
    assert loaded(context, Hooks).handle([{"body": 1}, {"body": 2}], context) == [2, "because 2"]


def test_a_batch_of_explanations_runs_no_prediction():
    context = Context("m", "")
    context.begin([RequestInfo("a", (), {"explain": "True"})])
    handler = loaded(context, Hooks)
    assert handler.handle([{"body": 1}], context) == ["because 1"]
    assert handler.seen == []


def test_a_model_without_explanations_says_so_and_answers_what_else_is_in_the_batch(archive):
    context = archive(NET)
    context.begin([RequestInfo(name, (), {"explain": flag}) for name, flag in (("a", "True"), ("b", "False"))])
    refused, answer = loaded(context).handle([{"body": [1]}, {"body": [2]}], context)
    assert isinstance(refused, PredictionError)
    assert (refused.status, "no explanations" in refused.message) == (501, True)
    assert not isinstance(answer, PredictionError)


@pytest.mark.parametrize(
    ("wrong", "message"), [([1], "returned 1 results for 2 items"), ((1, 2), "must return a list")]
)
def test_a_hook_that_loses_items_is_named(wrong, message):
    handler, context = Hooks(), Context("m", "")
    handler.initialize(context)
    handler.postprocess = lambda data: wrong
    with pytest.raises((ValueError, TypeError), match=message):
        handler.handle([{"body": 1}, {"body": 2}], context)


def test_a_refusal_outside_of_handle_is_raised_at_once(archive):
    handler = loaded(archive(NET))
    with pytest.raises(PredictionError):
        handler.preprocess([{"body": b"?"}])
