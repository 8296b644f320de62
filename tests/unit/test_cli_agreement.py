"""When two answers count as the same."""

import json

import pytest

from mlserve.cli.agreement import compare

CLOSE = 1e-3


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (b"\xff\x00", b"\xff\x00"),
        (b"[1, 2]", b"[1.0, 2]"),
        (b'{"a": 1, "b": [0.5]}', b'{"b":[0.5004],"a":1}'),
        (b"[1000000.0]", b"[1000500]"),
        (b"[NaN]", b"[ NaN]"),
        (b'["x", null, true]', b'["x",null,true]'),
    ],
)
def test_spelling_order_and_rounding_are_no_difference(left, right):
    assert compare(left, right, CLOSE).same


@pytest.mark.parametrize(
    ("left", "right", "where"),
    [
        (b"\xff", b"\xfe", "the bytes"),
        (b"[1]", b"not json", "the bytes"),
        (b"[1, 2]", b"[1]", "$"),
        (b'{"a": 1}', b'{"b": 1}', "$"),
        (b'{"a": [0, 0.5]}', b'{"a": [0, 0.6]}', "$.a[1]"),
        (b'{"a": "x"}', b'{"a": "y"}', "$.a"),
        (b"[1]", b"[true]", "$[0]"),
        (b"[1]", b"[NaN]", "$[0]"),
        (b"[0, 1, 5]", b"[0.5, 1, 9]", "$[0]"),
    ],
)
def test_what_differs_is_named(left, right, where):
    found = compare(left, right, CLOSE)
    assert (found.same, found.where) == (False, where)
    assert found.text().startswith(f"differs at {where}")


def test_the_largest_difference_within_the_tolerance_is_told():
    assert compare(json.dumps([1, 0.5]).encode(), json.dumps([1.0001, 0.5005]).encode(), CLOSE).error == pytest.approx(
        5e-4
    )
