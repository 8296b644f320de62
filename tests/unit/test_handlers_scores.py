"""Which classes and boxes an answer holds, and what they are called."""

import importlib
import json
import math

import pytest

from mlserve.handler import Context
from mlserve.handlers.labels import labels_in
from mlserve.handlers.scores import score_range

torch = pytest.importorskip("torch")
LOGITS = torch.log(torch.tensor([[0.5, 0.12, 0.3, 0.08], [0.05, 0.9, 0.04, 0.01]]))
FOUND = [
    {
        "boxes": torch.arange(12.0).reshape(3, 4),
        "labels": torch.tensor([1, 2, 3]),
        "scores": torch.tensor([0.9, 0.6, 0.2]),
    }
]


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """A handler of that name and class, with that ``handler`` section, without a model."""

    def made(name, cls, options, **attributes):
        built_in = getattr(importlib.import_module(f"mlserve.handlers.{name}"), cls)
        handler = type("Sub", (built_in,), {"inference": lambda self, data: data, **attributes})()
        if name == "text_classifier":
            torch.save(["<unk>"], tmp_path / "source_vocab.pt")
        handler.initialize(
            Context("m", str(tmp_path), {"model": {"modelName": "m"}}, model_yaml_config={"handler": options})
        )
        return handler

    return made


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [["0", "2", "1", "3"], ["1", "0", "2", "3"]]),
        ({"min_score": 0.2}, [["0", "2"], ["1"]]),
        ({"max_score": 0.45}, [["2", "1", "3"], ["0", "2", "3"]]),
        ({"min_score": 0.045, "max_score": 0.45, "topk": 1}, [["2"], ["0"]]),
        ({"min_score": 0.95}, [[], []]),
        ("an option of somebody else", [["0", "2", "1", "3"], ["1", "0", "2", "3"]]),
    ],
)
def test_classes_out_of_the_range_are_left_out_before_the_best_are_chosen(loaded, options, expected):
    answers = loaded("image_classifier", "ImageClassifier", options).postprocess(LOGITS)
    assert [list(answer) for answer in answers] == expected
    assert all(
        value == pytest.approx(LOGITS[row].exp()[int(key)]) for row in (0, 1) for key, value in answers[row].items()
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.9, 0.6]),
        ({"threshold": 0.7}, [0.9]),
        ({"min_score": 0.1}, [0.9, 0.6, 0.2]),
        ({"min_score": 0, "max_score": 0.6}, [0.6, 0.2]),
    ],
)
def test_boxes_out_of_the_range_are_left_out(loaded, options, expected):
    (answer,) = loaded("object_detector", "ObjectDetector", options).postprocess(FOUND)
    assert [round(box["score"], 6) for box in answer] == expected


def test_a_text_s_classes_keep_their_order(loaded):
    handler = loaded("text_classifier", "TextClassifier", {"min_score": 0.045, "max_score": 0.6})
    assert [list(answer) for answer in handler.postprocess(LOGITS)] == [["0", "1", "2", "3"], ["0"]]
    (odd,) = loaded("text_classifier", "TextClassifier", {}).postprocess(torch.tensor([[math.nan, 0.0]]))
    assert list(odd) == ["0", "1"], "a model gone astray is to be seen"


def test_a_subclass_has_defaults_of_its_own_which_nothing_checks(loaded):
    assert loaded("object_detector", "ObjectDetector", {}, threshold=1.5).threshold == 1.5
    handler = loaded("image_classifier", "ImageClassifier", {"max_score": 0.9}, min_score=0.3)
    assert (handler.min_score, handler.max_score) == (0.3, 0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 2}, r"handler\.min_score .* must be a number from 0 to 1, got 2"),
        ({"max_score": "0.5"}, r"handler\.max_score .* got '0.5'"),
        ({"min_score": True}, r"handler\.min_score .* got True"),
        ({"max_score": math.nan}, r"handler\.max_score .* got nan"),
        ({"min_score": 0.8, "max_score": 0.2}, r"handler\.min_score .* is 0.8, which is above max_score, 0.2"),
    ],
)
def test_a_wrong_score_stops_loading_and_names_the_key(loaded, options, message):
    with pytest.raises(ValueError, match=message):
        score_range({"handler": options})
    with pytest.raises(ValueError, match=message):
        loaded("image_classifier", "ImageClassifier", options)
    with pytest.raises(ValueError, match=message):
        loaded("text_classifier", "TextClassifier", options)


def test_two_names_of_one_threshold_are_not_both_given(loaded):
    with pytest.raises(ValueError, match=r"handler\.threshold and handler\.min_score .* give one"):
        loaded("object_detector", "ObjectDetector", {"threshold": 0.4, "min_score": 0.4})
    with pytest.raises(ValueError, match=r"handler\.threshold .* must be a number from 0 to 1, got 2"):
        loaded("object_detector", "ObjectDetector", {"threshold": 2})


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"mapping.json": {"0": "cat", "1": ["n1", "dog"]}}, {"0": "cat", "1": "dog"}),
        ({"mapping.json": {"object_type_names": ["cat", "dog"]}}, {"0": "cat", "1": "dog"}),
        ({"mapping.json": {"0": "no"}, "index_to_name.json": {"0": "cat"}}, {"0": "cat"}),
        ({"mapping.json": {"input": "pixel_values"}}, None),
        ({"mapping.json": [1, 2]}, None),
    ],
)
def test_class_names_are_found_and_a_file_that_happens_to_be_called_so_is_left_alone(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert labels_in(tmp_path) == expected
