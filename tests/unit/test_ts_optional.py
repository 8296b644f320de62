"""Names of ``ts`` that stand on packages which only some handlers need."""

import importlib
import json
import sys
import types

import pytest
from support.ts_names import ts_names  # noqa: F401

pytestmark = pytest.mark.usefixtures("ts_names")


class Streamer:
    """As much of transformers' TextIteratorStreamer as there is to see."""

    def __init__(self, tokenizer, skip_prompt, timeout):
        assert (tokenizer, skip_prompt, timeout) == ("tokenizer", True, 5)
        self.texts = []

    def put(self, value):
        self.texts += [str(each) for each in value.values]

    def end(self):
        self.texts.append(None)

    def __iter__(self):
        return iter(self.texts[:-1])


class Tokens:
    """A tensor of tokens, one row per sequence."""

    def __init__(self, *values):
        self.values, self.shape = values, (len(values),)

    def __getitem__(self, rows):
        return Tokens(*self.values[rows])


def test_a_batchs_texts_come_sequence_by_sequence(monkeypatch):
    fake = types.ModuleType("transformers.generation.streamers")
    fake.BaseStreamer, fake.TextIteratorStreamer = type("BaseStreamer", (), {}), Streamer
    for name in ("transformers", "transformers.generation"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.delitem(sys.modules, "mlserve.compat.ts.handler_utils.hf_batch_streamer", raising=False)
    made = importlib.import_module("ts.handler_utils.hf_batch_streamer").TextIteratorStreamerBatch(
        "tokenizer", 2, skip_prompt=True, timeout=5
    )
    with pytest.raises(ValueError, match="2 sequences"):
        made.put(Tokens(1, 2, 3))
    made.put(Tokens(1, 2))
    made.put(Tokens(3, 4))
    made.end()
    made.streamer_iterators = [iter(streamer) for streamer in made.streamers]  # the real ones wait for what is put
    assert list(made) == [[{"text": "1"}, {"text": "2"}], [{"text": "3"}, {"text": "4"}]]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "mlserve.compat.ts.handler_utils.hf_batch_streamer", raising=False)
    with pytest.raises(ImportError, match="pip install transformers"):
        importlib.import_module("ts.handler_utils.hf_batch_streamer")


def test_deepspeed_gets_the_files_that_the_configuration_names(monkeypatch, tmp_path):
    from ts.handler_utils.distributed.deepspeed import get_ds_engine
    from ts.torch_handler.distributed.base_deepspeed_handler import BaseDeepSpeedHandler

    fake = types.ModuleType("deepspeed")
    fake.init_inference = lambda model, **options: (model, options)
    monkeypatch.setitem(sys.modules, "deepspeed", fake)
    monkeypatch.setenv("LOCAL_RANK", "3")
    handler = BaseDeepSpeedHandler()
    handler.initialize(None)
    assert handler.device == 3
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "a.bin").touch()
    (weights / "a.txt").touch()
    options = {"deepspeed": {"config": "ds.json", "checkpoint": "list.json"}, "handler": {"model_path": str(weights)}}
    context = types.SimpleNamespace(
        model_name="m", model_yaml_config=options, system_properties={"model_dir": str(tmp_path)}
    )
    with pytest.raises(ValueError, match="no deepspeed config file"):
        get_ds_engine("model", context)
    (tmp_path / "ds.json").touch()
    model, given = get_ds_engine("model", context)
    assert model == "model"
    assert given == {
        "config": str(tmp_path / "ds.json"),
        "base_dir": str(weights),
        "checkpoint": str(tmp_path / "list.json"),
    }
    assert json.loads((tmp_path / "list.json").read_text())["checkpoints"] == [str(weights / "a.bin")]


def test_a_handler_on_dali_prepares_images_for_any_model():
    from ts.torch_handler.base_handler import BaseHandler
    from ts.torch_handler.dali_handler import DALIHandler

    from mlserve.handlers.dali_image_classifier import DALIPreprocessing

    assert issubclass(DALIHandler, BaseHandler)
    assert DALIHandler.preprocess is DALIPreprocessing.preprocess
