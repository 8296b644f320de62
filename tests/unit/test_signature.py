"""Where the batch axis is, and what model-config.yaml may say of tensors that a file does not describe."""

from types import SimpleNamespace

import pytest

pytest.importorskip("numpy")

from mlserve.handlers.auto import complete, servable
from mlserve.handlers.signature import Signature, Tensor, declared, with_batch_axis


def axes(*shapes):
    found = with_batch_axis([Tensor(str(index), "float32", shape) for index, shape in enumerate(shapes)], [])
    return [tensor.axis for tensor in found.inputs], found.batch


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ([("batch", 3)], ([0], None)),
        ([(None, 3)], ([0], None)),
        ([("batch", 3), (2, "batch", 128), ()], ([0, 1, None], None)),
        ([("batch", "samples"), ("other", 4)], ([0, 0], None)),
        ([("batch", 3), (7, 4)], ([0, None], None)),
        ([(1, 3, 224, 224)], ([0], 1)),
        ([(8, 3), (8,), (3,)], ([0, 0, None], 8)),
        ([(), (None, 3)], ([None, 0], None)),
        ([None], ([0], None)),
    ],
    ids=str,
)
def test_a_recurrent_state_or_a_scalar_is_not_batched_on_its_first_axis(shapes, found):
    assert axes(*shapes) == found


def test_what_varies_is_shown_as_minus_one():
    assert Tensor("x", "float16", ("batch", None, 3)).describe() == {
        "name": "x",
        "datatype": "FP16",
        "shape": [-1, -1, 3],
        "batch_axis": 0,
    }
    assert Tensor("x").describe() == {"name": "x", "datatype": None, "shape": None, "batch_axis": 0}


def test_an_item_has_the_shape_without_the_batch_axis_wherever_that_is():
    state = Tensor("state", "float32", (2, "batch", 128), 1)
    assert state.fits((2, 128))
    assert state.fits((2, 5, 128), whole=True)
    assert not state.fits((5, 128))
    assert state.text() == "state: FP32 [2, 128]"


def test_declared_tensors_are_read_in_either_spelling_of_a_dtype():
    found = declared({"x": {"dtype": "FP32", "shape": [-1, 3]}, "n": "int64"}, "inputs")
    assert found == (Tensor("x", "float32", (None, 3)), Tensor("n", "int64"))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (["x"], "must map names"),
        ({"x": {"dtype": "floatish"}}, "unknown dtype 'floatish'"),
        ({"x": {"shape": "3"}}, "list of integers"),
        ({"x": {"shape": [3], "batch_axis": 1}}, "batch_axis 1 is no axis"),
    ],
    ids=str,
)
def test_a_wrong_declaration_names_its_key(section, said):
    with pytest.raises(ValueError, match="inputs") as caught:
        declared(section, "inputs")
    assert said in str(caught.value)


def test_a_declaration_fills_in_what_the_file_does_not_say():
    known = Signature((Tensor("x"), Tensor("y")), ())
    assert complete(known, {"inputs": {"y": {"dtype": "int64"}}}).inputs == (Tensor("x"), Tensor("y", "int64"))
    renamed = complete(known, {"inputs": {"a": "float32", "b": "float32"}}).inputs
    assert [tensor.name for tensor in renamed] == ["a", "b"]
    with pytest.raises(ValueError, match="z not among the model's inputs"):
        complete(known, {"inputs": {"z": "float32"}})


@pytest.mark.parametrize(
    ("dtype", "takes", "said"),
    [
        ("bfloat16", False, "'x' is bfloat16, which onnxruntime 1 does not take from NumPy: export the model with"),
        ("complex64", True, "'x' is complex64, which no request or answer can hold"),
        ("bfloat16", True, ""),
        ("", False, ""),
    ],
)
def test_numbers_that_no_request_can_hold_stop_the_load(dtype, takes, said):
    runtime = SimpleNamespace(name="onnxruntime 1", takes_bfloat16=takes)
    for signature in (Signature((Tensor("x", dtype),), ()), Signature((), (Tensor("x", dtype),))):
        if not said:
            assert servable(signature, runtime) is signature
            continue
        with pytest.raises(ValueError, match="'x' is") as caught:
            servable(signature, runtime)
        assert str(caught.value).startswith(said)


def test_inputs_of_unknown_size_stop_the_load_where_nothing_checks_them():
    runtime = SimpleNamespace(name="AOTInductor", unchecked=True)
    known = Signature((Tensor("x", "float32", (None, 3)),), ())
    assert servable(known, runtime) is known
    for unknown in (Tensor("x"), Tensor("x", "float32"), Tensor("x", "", (None, 3))):
        with pytest.raises(ValueError, match=r"AOTInductor reads beyond an input .* inputs: \{x: \{dtype: float32"):
            servable(Signature((unknown,), ()), runtime)
