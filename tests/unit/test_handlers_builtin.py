"""The built-in handlers beside image_classifier: detection, segmentation, text; and profiles and traces."""

import importlib
import io
import json
import sys

import pytest

from mlserve.handler import Context, PredictionError, RequestInfo
from mlserve.handlers import text as texts
from mlserve.worker.metrics import Metrics

torch = pytest.importorskip("torch")

DETECTOR = """
import torch
class Net(torch.nn.Module):
    def forward(self, images):
        return [{"boxes": torch.tensor([[0., 0., image.shape[2], image.shape[1]], [1., 1., 2., 2.]]),
                 "labels": torch.tensor([1, 2]), "scores": torch.tensor([0.9, 0.4])} for image in images]
"""
SEGMENTER = """
import torch
class Net(torch.nn.Module):
    def forward(self, images):
        return {"out": torch.stack([images.mean(dim=1), torch.zeros_like(images[:, 0])], dim=1)}
"""
BAG = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.EmbeddingBag(8, 2, mode="sum")
        self.embedding.weight = torch.nn.Parameter(torch.arange(16.0).reshape(8, 2) % 3)
    def forward(self, tokens, offsets):
        return self.embedding(tokens, offsets)
"""


@pytest.fixture
def loaded(tmp_path):
    def made(name, cls, net, vocabulary=None, labels=None, config=None):
        (tmp_path / "net.py").write_text(net)
        if vocabulary is not None:
            torch.save(vocabulary, tmp_path / "source_vocab.pt")
        if labels:
            (tmp_path / "index_to_name.json").write_text(json.dumps(labels))
        manifest = {"model": {"modelName": "m", "modelFile": "net.py"}}
        context = Context("m", str(tmp_path), manifest, model_yaml_config=config, metrics=Metrics())
        handler = getattr(importlib.import_module(f"mlserve.handlers.{name}"), cls)()
        handler.initialize(context)
        return handler, context

    yield made
    sys.modules.pop("net", None)


def png(width, height):
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.new("RGB", (width, height), (255, 0, 0)).save(file, "PNG")
    return file.getvalue()


def test_boxes_are_named_and_the_uncertain_left_out(loaded):
    handler, context = loaded("object_detector", "ObjectDetector", DETECTOR, labels={"1": "cat", "2": "dog"})
    rows = [{"data": png(4, 6)}, {"body": png(8, 6)}, {"data": b"junk"}]
    answers = handler.handle(rows, context)
    assert [list(answer[0]) for answer in answers[:2]] == [["cat", "score"]] * 2
    assert [answer[0]["cat"] for answer in answers[:2]] == [[0, 0, 4, 6], [0, 0, 8, 6]]
    assert [len(answer) for answer in answers[:2]] == [1, 1]
    assert isinstance(answers[2], PredictionError)


@pytest.mark.parametrize("value", [[1.0], [[[1.0]]], [[], [], []]])
def test_a_list_that_is_no_image_is_refused_before_it_reaches_the_detector(loaded, value):
    handler, context = loaded("object_detector", "ObjectDetector", DETECTOR)
    good = [[[0.5] * 4] * 2] * 3
    first, wrong = handler.handle([{"body": good}, {"body": value}], context)
    assert first[0]["1"] == [0, 0, 4, 2]
    assert (wrong.status, "[3, height, width]" in wrong.message) == (400, True)


def test_the_threshold_is_set_in_the_configuration(loaded):
    handler, context = loaded("object_detector", "ObjectDetector", DETECTOR, config={"handler": {"threshold": 0.1}})
    assert [len(answer) for answer in handler.handle([{"data": png(4, 6)}], context)] == [2]
    with pytest.raises(ValueError, match=r"handler\.threshold .* from 0 to 1"):
        loaded("object_detector", "ObjectDetector", DETECTOR, config={"handler": {"threshold": 2}})


def test_each_pixel_gets_its_class_and_probability(loaded):
    handler, context = loaded("image_segmenter", "ImageSegmenter", SEGMENTER)
    (answer,) = handler.handle([{"data": png(300, 260)}], context)
    assert (len(answer), len(answer[0]), len(answer[0][0])) == (224, 224, 2)
    label, probability = answer[0][0]
    assert label in (0.0, 1.0)
    assert 0.5 <= probability <= 1


VOCABULARY = ["<unk>", "good", "film", "good film", "not"]


def test_texts_of_a_batch_are_classified_together(loaded):
    handler, context = loaded("text_classifier", "TextClassifier", BAG, VOCABULARY, {"0": "bad", "1": "fine"})
    answers = handler.handle([{"data": "Good <b>film</b>!"}, {"body": b"film"}, {"body": b"\xff"}], context)
    alone = [handler.handle([{"data": row}], context)[0] for row in ("good film", "film")]
    assert answers[:2] == alone
    assert list(answers[0]) == ["bad", "fine"]
    assert sum(answers[0].values()) == pytest.approx(1)
    assert answers[2].status == 400


@pytest.mark.parametrize("text", ["<br>", "'"])
def test_a_text_of_no_words_is_classified_and_no_error_of_types(loaded, text):
    handler, context = loaded("text_classifier", "TextClassifier", BAG, VOCABULARY)
    (answer,) = handler.handle([{"data": text}], context)
    assert sum(answer.values()) == pytest.approx(1)


def test_words_are_explained(loaded):
    pytest.importorskip("captum.attr")
    handler, context = loaded("text_classifier", "TextClassifier", BAG, VOCABULARY)
    context.begin([RequestInfo("r", (), {"explain": "True"})])
    (answer,) = handler.handle([{"data": "good film", "target": 1}], context)
    assert answer["words"] == ["good", "film"]
    assert [len(row) for row in answer["importances"]] == [2], "one row per text, as the layer is a bag"


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [(None, "has no source_vocab.pt"), (3, "holds a int"), ({"a": pytest}, "cannot be read as plain data")],
)
def test_a_vocabulary_that_cannot_be_used_says_what_to_save(loaded, vocabulary, message, monkeypatch):
    if isinstance(vocabulary, dict):

        class Vocab:
            pass

        monkeypatch.setattr(sys.modules[__name__], "Vocab", Vocab, raising=False)
        Vocab.__qualname__ = "Vocab"
        vocabulary = Vocab()
    with pytest.raises(ValueError, match=message):
        loaded("text_classifier", "TextClassifier", BAG, vocabulary)


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        ("I'd go", "I would go"),
        ("Don't, it isn't", "Do not, it is not"),
        ("can't won't", "cannot will not"),
        ("it's Anna's", "it is Annas"),
        ("let's", "let us"),
        ("we're they've she'll i'm", "we are they have she will i am"),
    ],
)
def test_contractions_are_written_out(given, expanded):
    assert texts.expand_contractions(given) == expanded


def test_tokens_and_pairs():
    assert texts.basic_english('You can "now", install it!') == ["you", "can", "now", ",", "install", "it", "!"]
    assert list(texts.ngrams(["here", "we", "are"], 2)) == ["here", "we", "are", "here we", "we are"]
    assert texts.remove_accents("café") == "cafe"
    assert texts.remove_markup("<p>a&amp;b</p>") == "ab"


@pytest.mark.parametrize("content", [{"a": 4, "<unk>": 2}, ["x", "y", "<unk>", "z", "a"]])
def test_an_unknown_word_has_an_index_of_its_own(content):
    vocabulary = texts.Vocabulary(content)
    assert (vocabulary["a"], vocabulary["never seen"]) == (4, 2)


def test_an_image_is_explained_for_the_class_it_names(loaded):
    pytest.importorskip("captum.attr")
    net = "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return x.mean(dim=(2, 3))\n"
    handler, context = loaded("image_classifier", "ImageClassifier", net, config={"image": {"resize": 4, "crop": 4}})
    context.begin([RequestInfo("a", (), {"explain": "True"}), RequestInfo("b", (), {"explain": "True"})])
    first, second = handler.handle([{"data": png(4, 4)}, {"data": png(4, 4), "target": 1}], context)
    assert torch.tensor(first).shape == (3, 4, 4)
    assert torch.tensor(first)[1:].abs().sum() == 0
    assert torch.tensor(second)[0].abs().sum() == 0


def test_the_hooks_report_their_times_where_the_yaml_asks(loaded):
    handler, context = loaded(
        "text_classifier", "TextClassifier", BAG, VOCABULARY, config={"handler": {"profile": True}}
    )
    handler.handle([{"data": "good"}], context)
    assert {record.name for record in context.metrics.take()} == {"ts_handler_inference", "ts_handler_postprocess"}


def test_a_trace_is_written_where_the_handler_says(loaded, tmp_path, monkeypatch):
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "true")
    handler, context = loaded("text_classifier", "TextClassifier", BAG, VOCABULARY)
    handler.profiler_args = {
        "activities": [torch.profiler.ProfilerActivity.CPU],
        "on_trace_ready": torch.profiler.tensorboard_trace_handler(str(tmp_path / "traces")),
    }
    assert len(handler.handle([{"data": "good"}], context)) == 1
    (trace,) = (tmp_path / "traces").glob("*.pt.trace.json")
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"preprocess", "inference", "postprocess"} <= names
