"""Explanations: an item that cannot be explained is told why, and what shares its batch is answered."""

import base64
import importlib
import io
import sys

import pytest

from mlserve.handler import Context, PredictionError, RequestInfo
from mlserve.handlers.envelopes import enclosed
from mlserve.handlers.explaining import captum, target_of

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")
pytest.importorskip("captum.attr")

IMAGES = "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return x.mean(dim=(2, 3))\n"
BOXES = "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n        return [" + (
    "{'boxes': torch.zeros(1, 4), 'labels': torch.ones(1), 'scores': torch.ones(1)} for _ in x]\n"
)
TEXTS = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.LAYER = torch.nn.EmbeddingBag(8, 2, mode="sum")
    def forward(self, tokens, offsets):
        return self.LAYER(tokens, offsets)
"""


@pytest.fixture
def loaded(tmp_path):
    def made(name, cls, net):
        (tmp_path / "net.py").write_text(net)
        torch.save(["<unk>", "good", "film"], tmp_path / "source_vocab.pt")
        manifest = {"model": {"modelName": "m", "modelFile": "net.py"}}
        context = Context("m", str(tmp_path), manifest, model_yaml_config={"image": {"resize": 4, "crop": 4}})
        handler = getattr(importlib.import_module(f"mlserve.handlers.{name}"), cls)()
        handler.initialize(context)
        return handler

    yield made
    sys.modules.pop("net", None)


def asked(handler, rows, explain=None):
    explain = explain or [True] * len(rows)
    handler.context.begin([RequestInfo(str(n), (), {"explain": str(flag)}) for n, flag in enumerate(explain)])
    return handler.handle(rows, handler.context)


def png():
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (255, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("target", ["x", [1], 3, -1, "99", b"4"])
def test_a_class_that_does_not_exist_is_a_400_of_that_item_alone(loaded, target):
    handler = loaded("image_classifier", "ImageClassifier", IMAGES)
    rows = [{"data": png(), "target": 2}, {"data": png(), "target": target}, {"data": png()}, {"data": b"junk"}]
    first, wrong, third, junk = asked(handler, rows)
    assert [torch.tensor(one).shape for one in (first, third)] == [(3, 4, 4)] * 2
    assert torch.tensor(first)[2].abs().sum() > 0
    assert torch.tensor(third)[0].abs().sum() > 0
    assert (wrong.status, junk.status) == (400, 400)
    assert "target" in wrong.message


def test_an_explicit_class_0_is_not_the_handler_s_own_default():
    assert [target_of({"target": given}, 7) for given in (0, "0", b"0", bytearray(b"3"), "")] == [0, 0, 0, 3, 7]
    assert [target_of(row, 7) for row in ({}, b"an image", None)] == [7, 7, 7]


@pytest.mark.parametrize(
    ("name", "cls", "net"),
    [("image_segmenter", "ImageSegmenter", IMAGES), ("object_detector", "ObjectDetector", BOXES)],
)
def test_what_has_no_classes_is_not_explained_and_its_batch_is_answered(loaded, name, cls, net):
    handler = loaded(name, cls, net)
    if name == "image_segmenter":
        handler.model = lambda images: {"out": images}
    first, second = asked(handler, [{"data": png()}, {"data": png()}], [True, False])
    assert first.status == 501
    assert "no explanations" in first.message
    assert isinstance(second, list)


def test_models_without_gradients_are_not_explained():
    class Session:
        def run(self): ...
        def get_inputs(self): ...

    compiled = type("AOTICompiledModel", (), {"__module__": "torch._inductor.package.package", "__call__": print})()
    for model in (Session(), compiled):
        with pytest.raises(PredictionError, match="need gradients") as caught:
            captum(model)
        assert caught.value.status == 501


def test_texts_are_explained_each_for_a_class_that_exists(loaded):
    handler = loaded("text_classifier", "TextClassifier", TEXTS.replace("LAYER", "embedding"))
    rows = [{"data": "good film", "target": 1}, {"data": "film", "target": 2}, {"data": "<br>"}, {"data": "film"}]
    first, wrong, empty, last = asked(handler, rows)
    assert (first["words"], empty["words"], last["words"]) == (["good", "film"], [], ["film"])
    assert wrong.status == 400
    assert "classes are 0 to 1" in wrong.message


def test_a_model_of_texts_without_that_layer_says_which_one_it_lacks(loaded):
    handler = loaded("text_classifier", "TextClassifier", TEXTS.replace("LAYER", "bag"))
    explained, answered = asked(handler, [{"data": "film"}, {"data": "film"}], [True, False])
    assert (explained.status, "layer called embedding" in explained.message) == (501, True)
    assert len(answered) == 2


def test_an_envelope_s_items_are_explained_where_their_request_asks(loaded):
    """Not where the first of the batch does: one would get predictions called explanations."""
    handler = loaded("image_classifier", "ImageClassifier", IMAGES)
    text = base64.b64encode(png()).decode()
    rows = [{"body": {"instances": [text, {"data": text}]}}, {"body": {"instances": [{"data": text, "target": 1}]}}]
    for explain in ([False, True], [True, False]):
        handler.context.begin([RequestInfo(str(n), (), {"explain": str(flag)}) for n, flag in enumerate(explain)])
        answers = enclosed("kserve", handler.handle)(rows, handler.context)
        assert [list(answer) for answer in answers] == [["explanations" if flag else "predictions"] for flag in explain]
        for flag, answer in zip(explain, answers, strict=True):
            assert {type(item) for items in answer.values() for item in items} == {list if flag else dict}


@pytest.mark.parametrize("name", ["body", "json", "kserve", "kservev2"])
def test_one_bad_image_in_an_envelope_fails_its_request_alone(loaded, name):
    handler = loaded("image_classifier", "ImageClassifier", IMAGES)

    def request(data):
        text = base64.b64encode(data).decode()
        tensor = {"name": "x", "shape": [1], "datatype": "BYTES", "data": [text]}
        forms = {"json": {"instances": [{"b64": text}]}, "kserve": {"instances": [{"data": text}]}}
        return {"body": {**forms, "body": text, "kservev2": {"inputs": [tensor]}}[name]}

    rows = [request(png()), request(b"junk"), request(png()[:45]), request(png())]
    handler.context.begin([RequestInfo(str(n)) for n in range(4)])
    first, junk, half, last = enclosed(name, handler.handle)(rows, handler.context)
    assert [junk.status, half.status] == [400, 400]
    assert not isinstance(first, PredictionError)
    assert type(first) is type(last)
