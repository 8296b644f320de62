"""Warm-up calls every batch size it says it does, with inputs that fit, or says what it needs."""

import json

import pytest

np = pytest.importorskip("numpy")

from mlserve.handlers.auto import warm_up_wanted  # noqa: E402
from mlserve.handlers.signature import Signature, Tensor  # noqa: E402
from mlserve.handlers.warmup import chosen_sizes, warm_up  # noqa: E402

KNOWN = Signature((Tensor("x", "float32", (None, 3, "width")), Tensor("t", "str", (None,))), ())
UNKNOWN = Signature((Tensor("x"),), ())


class Runtime:
    def __init__(self, signature, **what):
        self.signature = signature
        vars(self).update(what)


def calls(section, signature=KNOWN, directory=None, batch_size=8):
    seen = []

    def infer(inputs):
        seen.append(inputs)
        return {"y": inputs["x"]}

    warm_up(infer, signature, section, directory=directory, batch_size=batch_size)
    return seen


@pytest.mark.parametrize(
    ("section", "batch_size", "sizes"),
    [
        (True, 8, [1, 2, 8]),
        (True, 1, [1]),
        ({"sizes": [4, 16]}, 8, [4, 8]),
        (False, 8, []),
        (None, 8, []),
        ({"enable": False, "sizes": [1]}, 8, []),
    ],
    ids=str,
)
def test_each_batch_size_is_run_once_and_none_above_the_models_own(section, batch_size, sizes):
    assert [len(inputs["x"]) for inputs in calls(section, batch_size=batch_size)] == sizes


def test_dimensions_that_vary_are_what_the_section_says():
    (inputs, *_) = calls({"shapes": {"x": [3, 16]}})
    assert inputs["x"].shape == (1, 3, 16)
    assert inputs["x"].dtype == np.float32
    assert inputs["t"].tolist() == [""]


def test_a_sample_file_is_a_request_body(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps({"x": [[1, 2], [3, 4], [5, 6]], "t": "hi"}))
    found = calls({"samples": ["one.json"], "sizes": [2]}, directory=tmp_path)
    assert [inputs["x"][:, 0, 0].tolist() for inputs in found] == [[1, 1]]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"size": [1]}, "unknown size"),
        ({"sizes": 3}, "list of batch sizes"),
        ({"sizes": [0]}, "list of batch sizes"),
        ({"shapes": {"x": [4, 1]}}, "does not fit x: FP32 [3, width]"),
        ({"samples": "none.npy"}, "no file none.npy"),
        ({"samples": "../secret"}, "no file ../secret"),
        ({"samples": "bad.json"}, "sample bad.json does not fit: input 't' is missing"),
    ],
    ids=str,
)
def test_a_section_that_cannot_be_right_names_its_key(section, said, tmp_path):
    (tmp_path / "bad.json").write_text('{"x": []}')
    (tmp_path.parent / "secret").write_text("{}")
    with pytest.raises(ValueError, match="warmup") as caught:
        calls(section, directory=tmp_path)
    assert said in str(caught.value)


def test_an_input_of_unknown_shape_is_asked_for_and_not_guessed():
    with pytest.raises(ValueError, match="does not say its shape"):
        calls(True, UNKNOWN)
    assert warm_up_wanted(Runtime(UNKNOWN, wants_warm_up=True), {}) is False


def test_a_model_whose_first_calls_are_slow_is_warmed_up_without_being_asked():
    assert warm_up_wanted(Runtime(KNOWN, wants_warm_up=True), {}) is True
    assert warm_up_wanted(Runtime(KNOWN, wants_warm_up=True), {"warmup": False}) is False
    assert warm_up_wanted(Runtime(KNOWN), {}) is False


def test_a_runtime_says_which_sizes_it_prepares_for_unless_the_section_does():
    assert chosen_sizes(None, 8, [1, 2, 4, 8]) == [1, 2, 4, 8]
    assert chosen_sizes([3], 8, [1, 2, 4, 8]) == [3]


def test_bfloat16_is_warmed_up_with_numbers_that_numpy_has():
    [inputs] = calls({"sizes": [1]}, Signature((Tensor("x", "bfloat16", (None, 3)),), ()))
    assert inputs["x"].dtype == np.float32
