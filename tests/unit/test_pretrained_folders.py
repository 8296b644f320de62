"""Which folders are taken for models of transformers, by their own files."""

import json
from pathlib import Path

import pytest

from mlserve.archive.modelfiles import manifest_for_folder
from mlserve.archive.pretrained import handler_for


def folder(path: Path, config: object = None, *files: str) -> Path:
    if config is not None:
        (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name in files:
        (path / name).write_text("")
    return path


@pytest.mark.parametrize(
    ("config", "files", "handler"),
    [
        ({"architectures": ["BertForSequenceClassification"]}, ("model.safetensors",), "huggingface"),
        ({"model_type": "bert"}, ("pytorch_model.bin",), "huggingface"),
        ({"architectures": ["LlamaForCausalLM"]}, ("model-00001-of-00002.safetensors",), "llm"),
        ({"architectures": ["GPT2LMHeadModel"]}, ("model.safetensors",), "llm"),
        ({"architectures": ["BertModel"]}, ("model.safetensors", "modules.json"), "embedding"),
        ({"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}, ("model.safetensors", "own.py"), "huggingface"),
    ],
)
def test_a_folder_goes_to_the_handler_for_its_files(tmp_path, config, files, handler):
    assert handler_for(folder(tmp_path, config, *files)) == f"mlserve.handlers.{handler}"


@pytest.mark.parametrize(
    ("config", "files"),
    [
        (None, ("model.safetensors",)),
        ({"threshold": 0.5}, ("model.safetensors",)),  # somebody's own config.json
        ({"architectures": ["BertModel"]}, ()),  # no weights
        ({"architectures": ["BertModel"]}, ("model.safetensors", "handler.py")),
        ({"architectures": ["BertModel"]}, ("model.safetensors", "mine.py")),
        ({"auto_map": {}, "model_type": "own"}, ("model.safetensors", "handler.py")),
        ("not json", ("model.safetensors",)),
        ("[]", ("model.safetensors",)),
    ],
)
def test_other_folders_are_left_to_their_own_handler(tmp_path, config, files):
    assert handler_for(folder(tmp_path, config, *files)) == ""
    assert manifest_for_folder(tmp_path) is None


def test_the_made_up_manifest_names_the_folder_s_configuration(tmp_path):
    made = folder(tmp_path, {"architectures": ["BertModel"]}, "model.safetensors", "model-config.yaml")
    manifest = manifest_for_folder(made)
    assert manifest is not None
    assert manifest["model"]["configFile"] == "model-config.yaml"
    assert manifest["model"]["handler"] == "mlserve.handlers.huggingface"
