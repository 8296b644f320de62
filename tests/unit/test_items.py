"""Bodies to named arrays: every form that a request may have, and a 400 that says what was expected for the rest."""

import io
import json
import math

import pytest

np = pytest.importorskip("numpy")

from mlserve.handler import PredictionError, Response  # noqa: E402
from mlserve.handlers.items import decode, encode  # noqa: E402
from mlserve.handlers.signature import Signature, Tensor  # noqa: E402

X = Tensor("x", "float32", (None, 3))
Y = Tensor("y", "int64", ("batch", 2, "width"))
ONE = Signature((X,), (Tensor("z", "float32", (None, 1)),))
TWO = Signature((X, Y), (Tensor("z", "float32", (None, 1)),))
TEXT = Signature((Tensor("t", "str", (None,)),), ())
RATE = Signature((X, Tensor("sr", "int64", (), None)), ())
FREE = Signature((Tensor("x"),), ())


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return bytearray(file.getvalue())


def npz(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def refused(body, signature=ONE):
    with pytest.raises(PredictionError) as caught:
        decode({"body": body}, signature)
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    "row",
    [
        {"body": {"x": [1, 2, 3]}},
        {"data": {"x": [1, 2, 3]}},
        {"body": [1, 2, 3]},
        {"body": b"[1, 2, 3]"},
        {"body": '{"x": [1, 2, 3]}'},
        {"x": "[1, 2, 3]"},
        {"x": bytearray(b"[1, 2, 3]")},
        {"x": npy(np.array([1, 2, 3]))},
        {"body": npy(np.array([1.0, 2, 3]))},
        {"body": memoryview(bytes(npy(np.array([1.0, 2, 3]))))},
        {"body": memoryview(b"[1, 2, 3]")},
        {"x": memoryview(bytes(npy(np.array([1, 2, 3]))))},
        {"body": npz(x=np.array([1, 2, 3], np.uint8))},
        {"body": {"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}]}},
        [1, 2, 3],
    ],
    ids=lambda data: str(data).split(" at 0x")[0],
)
def test_every_way_to_send_one_item_is_the_same_item(row):
    item = decode(row, ONE)
    assert item.arrays["x"].tolist() == [[1.0, 2.0, 3.0]]
    assert item.arrays["x"].dtype == np.float32
    assert (item.rows, item.whole) == (1, False)


def test_several_rows_in_one_request_are_not_taken_for_an_item():
    tensors = {"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}], "id": "a"}
    item = decode({"body": tensors}, ONE)
    assert (item.rows, item.whole, item.style, item.id) == (2, True, "open inference", "a")
    assert decode({"body": npy(np.zeros((4, 3)))}, ONE).rows == 4


def odd(array):
    """A file whose values start at no multiple of 2: the header's padding is there for the reader only."""
    head = repr({"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}).encode() + b"\n"
    head = head if len(head) % 2 else b" " + head
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + array.tobytes()


def test_values_are_read_from_where_they_lie_in_any_npy_file():
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    later = io.BytesIO()
    np.lib.format.write_array(later, rows, version=(2, 0))
    swapped, columns = npy(rows.astype(">f4")), npy(np.asfortranarray(rows))
    for body in (npy(rows), bytes(npy(rows)), memoryview(npy(rows)), later.getvalue(), swapped, columns, odd(rows)):
        array = decode({"body": body}, ONE).arrays["x"]
        assert array.tolist() == rows.tolist()
        assert (array.dtype, array.flags.aligned) == (np.float32, True)


def test_a_model_of_unknown_shape_takes_a_npy_file_as_an_item_and_open_inference_whole():
    assert decode({"body": npy(np.zeros((4, 3), np.float32))}, FREE).arrays["x"].shape == (1, 4, 3)
    body = {"inputs": [{"name": "x", "shape": [4, 3], "datatype": "FP32", "data": [0] * 12}]}
    assert decode({"body": body}, FREE).arrays["x"].shape == (4, 3)


def test_the_dtype_of_an_undeclared_input_does_not_change_with_its_values():
    assert decode({"body": [1.5]}, FREE).arrays["x"].dtype == np.float32
    assert decode({"body": [1]}, FREE).arrays["x"].dtype == np.float32
    assert decode({"body": npy(np.array([1]))}, FREE).arrays["x"].dtype == np.int64


def test_text_of_a_text_model_is_not_parsed_as_json():
    assert decode({"body": "[1, 2"}, TEXT).arrays["t"].tolist() == ["[1, 2"]
    assert decode({"body": bytearray("über".encode())}, TEXT).arrays["t"].tolist() == ["über"]
    assert "UTF-8" in refused(b"\xff\xfe", TEXT)
    assert "more than text" in refused({"t": 3}, TEXT)


def test_a_value_that_a_batch_shares_gets_no_batch_axis():
    item = decode({"body": {"x": [1, 2, 3], "sr": 16000}}, RATE)
    assert item.arrays["sr"].shape == ()
    assert item.arrays["x"].shape == (1, 3)


@pytest.mark.parametrize(
    ("body", "signature", "said"),
    [
        ({"x": [1, 2]}, ONE, "has the shape [2]: the model takes x: FP32 [3]"),
        ({"x": [[1, 2, 3]]}, ONE, "has the shape [1, 3]"),
        ({"z": [1, 2, 3]}, ONE, "input 'x' is missing; unknown input 'z'"),
        ({"x": [1, 2, 3], "z": 0}, ONE, "unknown input 'z'"),
        ({"x": [1, "a", 3]}, ONE, "is text: expected x: FP32 [3]"),
        ({"x": [1, None, 3]}, ONE, "no array of numbers"),
        ({"x": [True, False, True]}, ONE, "is BOOL"),
        ({"x": [[1, 2], [3]]}, ONE, "ragged"),
        ({"x": {"a": 1}}, ONE, "no array of numbers"),
        ([1, 2, 3], TWO, "Expected a JSON object with x, y"),
        ({"x": [1, 2, 3], "y": [[1.5], [2]]}, TWO, "is FP64: expected y: INT64 [2, width]"),
        ({"x": [1, 2, 3], "y": [[2**70], [0]]}, TWO, "no array of numbers"),
        (b"\xff\xd8 a photo", ONE, "neither JSON nor a .npy file"),
        ("nonsense", ONE, "(Expecting value: line 1 column 1 (char 0)): the model takes x: FP32 [3]"),
        ({"[1,2,3]": ""}, ONE, "came as application/x-www-form-urlencoded: send content-type: application/json"),
        ({"\ufffdNUMPY\x01": "", "a": ""}, ONE, "came as application/x-www-form-urlencoded"),
        (bytes(npy(np.zeros(3)))[:20], ONE, "cannot be read"),
        (b"\x93NUMPY", ONE, "cannot be read"),
        (npy(np.array(["a"], object)), ONE, "cannot be read"),
        (npz(x=np.zeros(3))[:-8], ONE, "cannot be read"),
        (npz(np.savez_compressed, x=np.zeros(3)), ONE, "compressed .npz"),
        (bytes(npy(np.zeros(3))).replace(b"(3,), }  ", b"(10**15,)"), ONE, "cannot be read"),
        (bytes(npy(np.zeros(3))).replace(b"(3,), }" + b" " * 14, b"(999999999999999,), }"), ONE, "cannot be read"),
        (npy(np.zeros((0, 3))), ONE, "batch length of 1 or more"),
        (npy(np.zeros((2, 4))), ONE, "has the shape [2, 4]"),
        (npy(np.zeros(3)), TWO, "send .npz"),
        ({"inputs": [{"name": "x", "shape": [3], "datatype": "INT8", "data": [1, 2, 3]}]}, ONE, "says datatype INT8"),
        (
            {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2, 3]}]},
            ONE,
            "do not fill its shape",
        ),
        ({"inputs": [{"name": "x", "shape": "no", "datatype": "FP32", "data": [1]}]}, ONE, "do not fill its shape"),
        ({"inputs": [{"name": "w", "shape": [3], "data": [1, 2, 3]}]}, ONE, "unknown input 'w'"),
        ({"inputs": [{"name": "x", "shape": [1e400], "datatype": "FP32", "data": [1]}]}, ONE, "do not fill its shape"),
        (None, ONE, "no array of numbers"),
        (b"[" * 100_000, ONE, "neither JSON nor a .npy file"),
        (["a", "b"], FREE, "Input 'x' is text: expected numbers"),
        (npy(np.array([b"a"])), FREE, "Input 'x' is text: expected numbers"),
        (npy(np.array([1j])), FREE, "Input 'x' is complex128: expected numbers"),
        (npy(np.zeros(1, "datetime64[s]")), FREE, "expected numbers"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_does_not_fit_is_a_400_that_says_what_was_expected(body, signature, said):
    assert said in refused(body, signature)


def test_a_small_integer_is_not_wrapped():
    small = Signature((Tensor("x", "int8", (None,)),), ())
    assert "do not fit" in refused({"x": 300}, small)
    assert decode({"body": {"x": -128}}, small).arrays["x"].tolist() == [-128]


def test_a_finite_number_does_not_become_infinite():
    single = Signature((Tensor("x", "float32", (None,)),), ())
    assert "do not fit" in refused({"x": 1e39}, single)
    assert decode({"body": {"x": math.inf}}, single).arrays["x"].tolist() == [math.inf]


def answer(body, outputs, signature=ONE, accept=""):
    return encode(outputs, decode({"body": body}, signature), signature, accept)


def test_an_item_is_answered_without_the_batch_axis_and_with_the_digits_its_precision_has():
    found = answer([1, 2, 3], {"z": np.array([[0.1]], np.float32)})
    assert isinstance(found, Response)
    assert (found.body, found.content_type) == (b'{"z":[0.1]}', "application/json")


def test_open_inference_is_answered_in_its_style():
    body = {"id": "7", "inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [[1, 2, 3], [4, 5, 6]]}]}
    found = json.loads(answer(body, {"z": np.array([[1.0], [2.0]])}).body)
    assert found == {"id": "7", "outputs": [{"name": "z", "shape": [2, 1], "datatype": "FP64", "data": [1.0, 2.0]}]}


def test_npy_is_answered_with_npy_only_to_who_accepts_it():
    array = np.array([[1.5]], np.float32)
    found = answer(npy(np.zeros(3)), {"z": array}, accept="application/x-npy")
    assert np.load(io.BytesIO(found.body)).tolist() == [1.5]
    assert answer(npy(np.zeros(3)), {"z": array}, accept="*/*").content_type == "application/json"


@pytest.mark.parametrize("array", [np.array([["a", "b"]], object), np.array([[b"a", b"b"]], object)], ids=str)
def test_text_outputs_are_json_strings(array):
    assert answer([1, 2, 3], {"z": array}).body == b'{"z":["a","b"]}'


def test_half_precision_and_slices_can_be_written():
    assert (
        answer([1, 2, 3], {"z": np.arange(8, dtype=np.float16).reshape(1, 8)[:, ::2]}).body
        == b'{"z":[0.0,2.0,4.0,6.0]}'
    )
