"""Rows of a table: named and ordered, one and several, numbers and categories; a 400 names the feature."""

import json
import types

import pytest

np = pytest.importorskip("numpy")

from mlserve.handler import Context, PredictionError  # noqa: E402
from mlserve.handlers.signature import Signature, Tensor  # noqa: E402
from mlserve.handlers.tabular import TabularHandler, with_features  # noqa: E402

NUMBERS = Signature((Tensor("x", "float32", (None, 3), features=("a", "b", "c")),), (Tensor("y"),))
UNNAMED = Signature((Tensor("x", "float64", (None, 3)),), (Tensor("y"),))
MIXED = Signature((Tensor("sex", "str", (None,)), Tensor("age", "float64", (None,))), (Tensor("y"),))


def handler(signature):
    made = TabularHandler()
    made.signature = signature
    made.runtime = types.SimpleNamespace(name="r", signature=signature, infer=infer)
    return made


def infer(inputs):
    """The sum of each row; of a mixed one the length of its text and its number."""
    if "x" in inputs:
        return {"y": inputs["x"].sum(axis=1)}
    return {"y": np.array([len(one) for one in inputs["sex"]]) + inputs["age"]}


def answer(body, signature=NUMBERS):
    (found,) = handler(signature).handle([{"body": body}], Context("m", "."))
    return json.loads(found.body)


def refused(body, signature=NUMBERS):
    with pytest.raises(PredictionError) as caught:
        handler(signature).decode({"body": body})
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        {"c": 3, "a": 1, "b": 2},
        b'{"a": 1, "b": 2, "c": 3}',
        [1, 2, 3],
        [True, 2.0, 3],
        {"x": [1, 2, 3]},
        "[1, 2, 3]",
        {"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}]},
    ],
    ids=str,
)
def test_every_way_to_send_a_row_is_the_same_row(body):
    found = answer(body)
    assert found == {"y": 6.0} or found["outputs"][0]["data"] == [6.0]


def test_a_form_s_fields_are_features():
    (found,) = handler(NUMBERS).handle([{"a": b"1", "b": bytearray(b"2"), "c": "3"}], Context("m", "."))
    assert json.loads(found.body) == {"y": 6.0}


def test_several_rows_are_answered_by_lists():
    assert answer([[1, 2, 3], {"a": 1, "b": 1, "c": 1}]) == {"y": [6.0, 3.0]}
    assert answer([["ab", 1], {"age": 2, "sex": "a"}], MIXED) == {"y": [3.0, 3.0]}
    assert answer([[1, 2, 3]], UNNAMED) == {"y": [6.0]}, "a list of one row is a list"


def test_a_batch_keeps_each_answer_at_its_place_beside_what_is_refused():
    rows = [{"body": [1, 1, 1]}, {"body": ["x", 1, 1]}, {"body": [[2, 2, 2], [3, 3, 3]]}]
    first, second, third = handler(NUMBERS).handle(rows, Context("m", "."))
    assert json.loads(first.body) == {"y": 3.0}
    assert isinstance(second, PredictionError)
    assert json.loads(third.body) == {"y": [6.0, 9.0]}


def test_null_is_a_missing_value():
    assert answer({"a": None, "b": 1, "c": 1}) == {"y": None}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {"a": "red", "b": 1, "c": 1},
            "Feature a is 'red': the model takes numbers only. Send a category as the number",
        ),
        ({"a": 1, "b": 1}, "feature 'c' is missing: the model takes a, b, c"),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, "unknown feature 'd': the model takes a, b, c"),
        ({"a": [1], "b": 1, "c": 1}, "Feature a is list, expected a number"),
        ([1, 2], "A row of 2 values, expected 3: the model takes x: FP32 [3]"),
        ([[1, 2, 3], [1, 2]], "A row of 2 values, expected 3"),
        ([], "A row of 0 values, expected 3"),
        ({"x": [1, 2]}, "Input 'x' has the shape [2]: the model takes x: FP32 [3]"),
        ({'{"a": 1, "b": 1, "c": 1}': ""}, "The body came as application/x-www-form-urlencoded: send content-type"),
        (b"{nonsense", "The body is neither JSON nor a .npy file"),
        (b"[" * 100_000, "The body is neither JSON nor a .npy file"),
        (b"3", "Input 'x' has the shape []: the model takes x: FP32 [3]"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_row_is_refused_with_what_was_expected(body, said):
    assert refused(body).startswith(said)


def test_a_category_where_a_model_takes_text_must_be_text():
    assert refused({"sex": 1, "age": 2}, MIXED) == "Input 'sex' holds more than text: expected sex: BYTES []"
    assert refused({"sex": "a", "age": "old"}, MIXED).startswith("Feature age is 'old'")


def test_a_column_of_true_and_false_beside_text_is_a_number():
    assert answer({"sex": "ab", "age": True}, MIXED) == {"y": 3.0}
    assert answer([["ab", True], ["ab", False]], MIXED) == {"y": [3.0, 2.0]}
    assert answer([True, True, False]) == {"y": 2.0}
    flag = Signature((Tensor("f", "bool", (None,)), Tensor("age", "float64", (None,))), (Tensor("y"),))
    assert handler(flag).decode({"body": {"f": True, "age": 1}}).arrays["f"].tolist() == [True]


def test_an_input_of_one_column_for_each_feature_is_given_its_second_axis():
    columns = Signature((Tensor("sex", "str", (None, 1)), Tensor("age", "float32", ("n", 1))), (Tensor("y"),))
    for body in (["ab", 1], {"sex": "ab", "age": 1}, {"sex": ["ab"], "age": [1]}):
        arrays = handler(columns).decode({"body": body}).arrays
        assert {name: array.tolist() for name, array in arrays.items()} == {"sex": [["ab"]], "age": [[1.0]]}
    assert handler(columns).decode({"body": [["ab", 1], ["c", 2]]}).arrays["age"].tolist() == [[1.0], [2.0]]
    wide = Signature((Tensor("sex", "str", (None,)), Tensor("age", "float32", (None, 2))), (Tensor("y"),))
    assert refused(["ab", 1], wide).startswith("Input 'age' has the shape []: the model takes sex: BYTES [], age: FP32")


def test_a_feature_may_be_called_like_the_input():
    """Which is ``x``, as in the data of many a first model."""
    assert answer({"x": 1, "y": 2, "z": 3}, with_features(UNNAMED, ["x", "y", "z"])) == {"y": 6.0}
    one = Signature((Tensor("x", "float64", (None, 1), features=("x",)),), ())
    assert answer({"x": 4}, one) == answer({"x": [4]}, one) == {"y": 4.0}


def test_names_can_be_given_to_a_model_that_was_trained_without():
    assert answer({"p": 1, "q": 2, "r": 3}, with_features(UNNAMED, ["p", "q", "r"])) == {"y": 6.0}
    for wrong in (["p"], "p", {"p": 1}):
        with pytest.raises(ValueError, match=r"features in model-config.yaml must list 3 names"):
            with_features(UNNAMED, wrong)
