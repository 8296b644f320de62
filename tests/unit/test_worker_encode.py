"""Bytes of an answer are those a TorchServe client would get; what has no encoding is refused by name."""

import collections
import enum
import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.worker import jsontext
from mlserve.worker.encode import BINARY, JSON, TEXT, UnsupportedOutput, encode_element

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text() | st.integers() | st.booleans() | st.none() | st.floats()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=25)


class Colour(enum.IntEnum):
    RED = 1


@given(values)
def test_text_is_that_of_json_dumps_with_indent_2(value):
    assert jsontext.dumps(value) == json.dumps(value, indent=2)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        [[]],
        {"a": {}},
        (1, (2, [3])),
        {"a": [{"b": [1, 2]}, "é\n\u2028"], "c": math.nan},
        {1: [True, {None: 2.0}]},
        collections.OrderedDict(b=[1], a=collections.defaultdict(list, x=[2])),
        [Colour.RED, {"c": [Colour.RED]}],
        [10**40, -0.0, 1e16, 1e-5, 1e-7],
    ],
)
def test_unusual_values_have_the_same_text_too(value):
    assert jsontext.dumps(value) == json.dumps(value, indent=2)


def test_deep_nesting_is_written_as_the_library_does():
    value = []
    for _ in range(200):
        value = [value]
    assert jsontext.dumps(value) == json.dumps(value, indent=2)


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ("grüße", ("grüße".encode(), TEXT)),
        (b"\x00\xff", (b"\x00\xff", BINARY)),
        (bytearray(b"ab"), (b"ab", BINARY)),
        (memoryview(b"abcdef")[::2], (b"ace", BINARY)),
        (memoryview(b"\x01\x00\x02\x00").cast("H"), (b"\x01\x00\x02\x00", BINARY)),
        ({"cat": 0.5}, (b'{\n  "cat": 0.5\n}', JSON)),
        ([1, 2], (b"[\n  1,\n  2\n]", JSON)),
        (3, (b"3", JSON)),
        (0.1, (b"0.1", JSON)),
        (True, (b"true", JSON)),
        (None, (b"null", JSON)),
        (math.nan, (b"NaN", JSON)),
        ("", (b"", TEXT)),
    ],
)
def test_element_is_encoded_by_its_type(element, expected):
    body, content_type = encode_element(element)
    assert (bytes(body), content_type) == expected
    assert len(body) == len(expected[0]), "the length on the wire is in bytes"


def test_tensor_is_saved_as_torch_saves_it():
    torch = pytest.importorskip("torch")
    import io

    body, content_type = encode_element(torch.tensor([1.0, 2.0]))
    assert content_type == BINARY
    assert torch.equal(torch.load(io.BytesIO(bytes(body)), weights_only=True), torch.tensor([1.0, 2.0]))


def test_numpy_arrays_and_scalars_become_lists_and_numbers():
    numpy = pytest.importorskip("numpy")
    assert encode_element(numpy.array([1, 2]))[0] == b"[\n  1,\n  2\n]"
    assert encode_element(numpy.float32(0.5))[0] == b"0.5"
    assert json.loads(encode_element({"a": numpy.array([[1]]), "b": numpy.int64(3)})[0]) == {"a": [[1]], "b": 3}


def test_encoding_does_not_import_torch():
    import subprocess

    code = "import sys; from mlserve.worker.encode import encode_element as e; e([1]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def circular():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("element", "said"),
    [
        ({1, 2}, "type set"),
        (object(), "type object"),
        ({"a": {"b": object()}}, "type dict: .*object is not JSON serializable"),
        ({(1, 2): 3}, "type dict: keys must be"),
        (circular(), "type list"),
        ("\ud800", "UTF-8"),
    ],
)
def test_what_cannot_be_encoded_is_refused_by_name(element, said):
    with pytest.raises(UnsupportedOutput, match=said):
        encode_element(element)
