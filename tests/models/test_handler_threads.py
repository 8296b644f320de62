"""Every runtime and every handler of texts and sounds, called by two threads at once: the answers of one alone."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import openvino
import pytest
import tensorflow as tf
import torch
import xgboost
from PIL import Image
from support import tiny
from support.abreast import check, loaded
from support.speech import recording, wav

WIDTH = 256
NETWORK = f"""
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        sizes = [{WIDTH}, 1024, 1024, 8]
        layers = [torch.nn.Linear(*pair) for pair in zip(sizes, sizes[1:])]
        self.layers = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh(), layers[2])
    def forward(self, x):
        return self.layers(x)
"""
INPUTS = {"x": {"dtype": "float32", "shape": [-1, WIDTH]}}
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "eager": ("net.pth", {"inputs": INPUTS}),
    "compile": ("net.pth", {"inputs": INPUTS, "pt2": {"backend": "aot_eager"}, "warmup": {"sizes": [1, 2, 5]}}),
    "torchscript": ("net.ts", {"inputs": INPUTS}),
    "export": ("net.pt2", {}),
    "onnx": ("net.onnx", {}),
    "openvino": ("net.onnx", {"runtime": "openvino"}),
    "openvino-file": ("net.xml", {}),
    "tensorflow": ("saved", {"runtime": "tensorflow"}),
}
TEXTS = [["the cat sat on a mat", "dogs run"], ["where is the blue house and what is the red house ?"]]


def rows(seed: int, count: int, width: int = WIDTH) -> list[bytes]:
    values = np.random.default_rng(seed).standard_normal((count, width)).round(3)
    return [json.dumps(row).encode() for row in values.tolist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small network in every format."""
    folder = tmp_path_factory.mktemp("net")
    (folder / "model.py").write_text(NETWORK)
    scope: dict[str, Any] = {}
    exec(NETWORK, scope)
    net, example = scope["Net"]().eval(), torch.zeros(2, WIDTH)
    torch.save(net.state_dict(), folder / "net.pth")
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn of what they themselves do
        torch.jit.trace(net, example).save(folder / "net.ts")
        program = torch.export.export(net, (example,), dynamic_shapes=(batch,))
        torch.export.save(program, folder / "net.pt2")
        axes = {"x": {0: "batch"}, "y": {0: "batch"}}
        torch.onnx.export(
            net, (example,), folder / "net.onnx", dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes=axes
        )
    openvino.save_model(openvino.convert_model(folder / "net.onnx"), folder / "net.xml", compress_to_fp16=False)
    module = tf.Module()
    module.weights = tf.Variable(np.random.default_rng(1).standard_normal((WIDTH, 512)).astype(np.float32))
    spec = tf.TensorSpec([None, WIDTH], tf.float32, name="x")
    mixed = tf.function(lambda x: {"y": tf.tanh(tf.matmul(x, module.weights))[:, :8]}, input_signature=[spec])
    tf.saved_model.save(module, str(folder / "saved"), {"serving_default": mixed})
    return folder


@pytest.mark.parametrize("kind", FILES)
def test_batches_side_by_side_are_answered_as_alone(kind, folder):
    file, config = FILES[kind]
    check(*loaded("auto", folder / file, config), [rows(1, 2), rows(2, 5)], 1e-4)


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "sklearn"])
def test_tables_side_by_side_are_answered_as_alone(kind, tmp_path, cancer):
    if kind == "xgboost":
        made = xgboost.train(
            {"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(cancer.rows, cancer.labels)
        )
        made.save_model(tmp_path / "m.ubj")
    elif kind == "lightgbm":
        table = lightgbm.Dataset(cancer.rows, cancer.labels)
        lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, table, 20).save_model(
            tmp_path / "m.txt"
        )
    else:
        import joblib
        from sklearn.ensemble import RandomForestClassifier

        joblib.dump(RandomForestClassifier(20, n_jobs=2).fit(cancer.rows, cancer.labels), tmp_path / "m.joblib")
    (file,) = tmp_path.iterdir()
    batches = [
        [json.dumps(row).encode() for row in cancer.rows[part].tolist()] for part in (slice(0, 3), slice(17, 24))
    ]
    check(*loaded("auto", file, {}), batches, 1e-6)


def test_embeddings_side_by_side_are_those_of_one_thread(tmp_path):
    made = tiny.bert(tmp_path / "bert", "BertModel")
    long = ["words and more words " * 60]  # cut: truncation is a setting of the tokenizer itself
    config = {"embedding": {"pooling": "mean", "max_length": 32}}
    check(*loaded("embedding", made, config), [[text.encode() for text in one] for one in (TEXTS[0], long)], 1e-5)


@pytest.mark.parametrize(
    ("task", "kind", "options"),
    [
        ("text-classification", "BertForSequenceClassification", {"num_labels": 3}),
        ("token-classification", "BertForTokenClassification", {"num_labels": 3}),
        ("question-answering", "BertForQuestionAnswering", {}),
        ("feature-extraction", "BertModel", {}),
    ],
)
def test_tasks_side_by_side_are_answered_as_alone(task, kind, options, tmp_path):
    made = tiny.bert(tmp_path / "bert", kind, **options)
    batches = [[text.encode() for text in batch] for batch in TEXTS]
    if task == "question-answering":  # the question is read uncut: the tokenizer's settings change all the time
        asked = [{"question": "where ?", "context": text * 40} for batch in TEXTS for text in batch]
        batches = [[json.dumps(one).encode()] for one in asked[:2]]
    check(*loaded("huggingface", made, {"huggingface": {"truncation": True}}), batches, 1e-4)


def test_images_side_by_side_are_answered_as_alone(tmp_path):
    check(*loaded("huggingface", tiny.vit(tmp_path / "vit"), {}), [[photo(1)], [photo(2), photo(3)]], 1e-4)


def photo(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("handler", ["llm", "huggingface"])
def test_texts_generated_side_by_side_are_those_of_one_thread(handler, tmp_path):
    made = tiny.gpt2(tmp_path / "gpt2")
    config = {handler: {"parameters": {"max_new_tokens": 6}}}
    check(*loaded(handler, made, config), [[text.encode() for text in batch] for batch in TEXTS])


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*:DeprecationWarning")
@pytest.mark.parametrize("onnx", [False, True])
def test_sounds_side_by_side_are_heard_as_alone(onnx, tmp_path):
    sounds = [wav(recording(parts, seed=seed)) for seed, parts in enumerate([(0.4, 0.8, 0.3), (0.2, 0.5, 0.4, 0.6)])]
    (tmp_path / "config.json").write_text("{}")
    entry, context = loaded("audio", tmp_path, {"audio": {"onnx": onnx}})
    check(entry, context, [[sounds[0]], [sounds[1], sounds[0]]], 1e-3)


def test_an_aotinductor_package_is_not_loaded_for_several_threads(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("net/data/aotinductor/model/x.so", b"")
    with pytest.raises(ValueError, match=r"handlerThreads is 2, but net\.pt2 was compiled by AOTInductor"):
        loaded("auto", tmp_path / "net.pt2", {"inputs": INPUTS})
