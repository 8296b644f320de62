"""Rows of ``data`` and the headers beside them are what TorchServe's handlers expect."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.errors import InvalidInput
from mlserve.wire.arena import Arena
from mlserve.wire.payload import ItemMeta, Load, PartMeta
from mlserve.worker.context import WireRequest
from mlserve.worker.rows import RowDecoder, parse_json


def decode(*parts, arena=None, views=False, **settings):
    """The row of one item with ``parts`` given as (name, content type, bytes)."""
    rows = RowDecoder(Load("m", "1", "", "h", {}, {}, **settings), arena, views)
    item = ItemMeta("r", [PartMeta(name, kind, len(data)) for name, kind, data in parts], [])
    (raw,) = rows.cut([item], memoryview(b"".join(data for _, _, data in parts)))
    return rows.row(item, raw)


def same(value, expected):
    return value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", b'{"a": [1, 2.5, null, "x"]}', {"a": [1, 2.5, None, "x"]}),
        ("Application/JSON; charset=utf-8", b"[1]", [1]),
        ("application/json", b"123456789012345678901234567890", 123456789012345678901234567890),
        ("application/json", b"", bytearray()),
        ("text/plain", "grüße".encode(), "grüße"),
        ("text/csv;header=present", b"1,2", "1,2"),
        ("text/plain", b"", bytearray()),
        ("", b"\xff\x00", bytearray(b"\xff\x00")),
        ("image/png", b"\x89PNG", bytearray(b"\x89PNG")),
        ("application/jsonlines", b"{}\n{}", bytearray(b"{}\n{}")),
    ],
)
def test_body_is_decoded_by_its_content_type(content_type, body, expected):
    row = decode(("body", content_type, body))
    assert list(row) == ["body"]
    assert same(row["body"], expected)


def test_item_without_parts_is_an_empty_row():
    """As of a gRPC request without input; a REST request without body has an empty part."""
    assert decode() == {}


def test_each_part_is_decoded_by_its_own_type_and_the_last_of_a_name_wins():
    row = decode(("a", "", b"1"), ("json", "application/json", b"{}"), ("a", "text/plain", b"2"))
    assert row == {"a": "2", "json": {}}


def test_nan_and_infinity_are_read_as_python_reads_them():
    value = parse_json(memoryview(b"[NaN, -Infinity, 1e400]"))
    assert math.isnan(value[0])
    assert value[1:] == [-math.inf, math.inf]


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("application/json", b'{"a": }', "Request body is not valid JSON: Expecting value: line 1 column 7"),
        ("application/json", b"[1] x", "Extra data"),
        ("application/json", b'"\xff"', "invalid start byte at byte 1"),
        ("application/json", b"[" * 100_000, "nested too deeply"),
        ("application/json", b"1" * 5000, "4300"),
        ("text/plain", b"ab\xff", "Request body is not valid UTF-8 text: invalid start byte at byte 2"),
    ],
)
def test_body_that_is_not_what_it_says_is_refused_with_the_reason(content_type, body, reason):
    if "4300" in reason and not hasattr(sys, "set_int_max_str_digits"):
        pytest.skip("this Python reads integers of any length")
    with pytest.raises(InvalidInput, match=reason):
        decode(("body", content_type, body))
    lenient = decode(("body", content_type, body), reject_invalid_json=False)
    assert same(lenient["body"], bytearray(body))


def test_refusal_names_the_part():
    with pytest.raises(InvalidInput, match="Part 'options' of the request"):
        decode(("body", "", b"x"), ("options", "application/json", b"{"))


def test_nothing_is_decoded_when_decoding_is_off():
    row = decode(("body", "application/json", b"{}"), decode_input=False)
    assert same(row["body"], bytearray(b"{}"))


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_parts_are_cut_where_they_end(bodies):
    row = decode(*((str(number), "", body) for number, body in enumerate(bodies)))
    assert row == {str(number): body for number, body in enumerate(bodies)}


@pytest.mark.parametrize("lengths", [(3,), (5,), (2, 3), ()])
def test_lengths_that_do_not_add_up_are_refused(lengths):
    rows = RowDecoder(Load("m", "1", "", "h", {}, {}), None)
    with pytest.raises(ValueError, match="announce"):
        rows.cut([ItemMeta("r", [PartMeta("a", "", length) for length in lengths], [])], memoryview(b"four"))


def test_part_in_an_arena_that_there_is_not_is_refused():
    rows = RowDecoder(Load("m", "1", "", "h", {}, {}), None)
    with pytest.raises(ValueError, match="arena"):
        rows.cut([ItemMeta("r", [PartMeta("a", "", 4, 0)], [])], memoryview(b""))


@pytest.mark.parametrize(("views", "kind"), [(False, bytearray), (True, memoryview)])
def test_arena_parts_are_copied_unless_the_handler_takes_views(views, kind):
    arena = Arena.create(4096)
    try:
        arena.write(64, b"abc")
        rows = RowDecoder(Load("m", "1", "", "h", {}, {}), arena, views)
        item = ItemMeta("r", [PartMeta("a", "", 3, 64), PartMeta("b", "", 1)], [])
        (raw,) = rows.cut([item], memoryview(b"x"))
        row = rows.row(item, raw)
        assert [type(value) for value in row.values()] == [kind, kind]
        arena.write(64, b"new")
        assert bytes(row["a"]) == (b"new" if views else b"abc")
        row.clear()
        raw.clear()
    finally:
        arena.close()


def test_headers_are_the_clients_and_then_the_servers():
    item = ItemMeta(
        "r", [PartMeta("body", "text/plain", 0)], [(b"X-Thing", b"caf\xe9"), (b"Accept", b"*/*")], False, "a/b"
    )
    assert WireRequest(item).headers == {
        "X-Thing": "café",
        "Accept": "*/*",
        "url_path": "a/b",
        "explain": "False",
        "body": {"content-type": "text/plain"},
    }


def test_a_header_is_not_hidden_by_a_part_of_its_name():
    """Over gRPC a client sends both: it ends a sequence by an entry of its input."""
    end = "ts_request_sequence_end"
    item = ItemMeta("r", [PartMeta(end, "", 0)], [(end.encode(), b"true")], False, None)
    assert WireRequest(item).headers == {end: "true"}


@pytest.mark.parametrize(
    ("explain", "url_path", "expected"),
    [
        (True, "", {"url_path": "", "explain": "True"}),
        (True, None, {"explain": "True"}),
        (False, None, {}),
    ],
)
def test_explain_and_path_are_there_only_where_the_protocol_has_them(explain, url_path, expected):
    assert WireRequest(ItemMeta("r", [], [], explain, url_path)).headers == expected
