"""Form bodies: what becomes a part, and what a client cannot make the server spend on them."""

from __future__ import annotations

import time
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.errors import InvalidInput
from mlserve.protocols.forms import MAX_ESCAPES, MAX_PARTS, parse_multipart, parse_urlencoded

PART = b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\nv\r\n'
MULTIPART = b"multipart/form-data; boundary=xx"


@pytest.mark.parametrize("sent", ["a=%C3%A9", "a=é"])
def test_text_beyond_ascii_in_a_form_is_not_refused(sent: str) -> None:
    (part,) = parse_urlencoded(sent.encode())
    assert (part.name, part.data) == ("a", "é".encode())


def test_bytes_that_are_no_text_pass_a_form_unchanged() -> None:
    assert [part.data for part in parse_urlencoded(b"a=%FF%00&b=\xfe")] == [b"\xff\x00", b"\xfe"]


@given(st.dictionaries(st.text(min_size=1), st.binary(), max_size=20))
def test_no_form_loses_a_field(fields: dict[str, bytes]) -> None:
    named = {name: value for name, value in fields.items() if not any(0xD800 <= ord(char) < 0xE000 for char in name)}
    parts = parse_urlencoded(urlencode(named).encode("ascii"))
    assert {part.name: part.data for part in parts} == named


def test_many_form_fields_are_refused_with_the_number() -> None:
    assert len(parse_urlencoded(b"&".join(b"f%d=" % number for number in range(MAX_PARTS)))) == MAX_PARTS
    with pytest.raises(InvalidInput, match="1000"):
        parse_urlencoded(b"&" * MAX_PARTS)


def test_a_form_field_of_a_huge_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"name of more than 4096 bytes\. A body that is no form"):
        parse_urlencoded(b"n" * 5000 + b"=1")


def test_a_form_of_escapes_cannot_hold_the_event_loop() -> None:
    assert parse_urlencoded(b"a=" + b"%41" * 100)[0].data == b"A" * 100
    with pytest.raises(InvalidInput, match="multipart"):
        parse_urlencoded(b"a=" + b"%41" * (MAX_ESCAPES + 1))


def test_repeated_parts_of_one_name_cannot_hold_the_event_loop() -> None:
    assert [part.name for part in parse_multipart(MULTIPART, PART * MAX_PARTS + b"--xx--\r\n")] == ["a"]
    begun = time.process_time()
    with pytest.raises(InvalidInput, match="More than 1000 parts"):
        parse_multipart(MULTIPART, PART * 200_000 + b"--xx--\r\n")
    assert time.process_time() - begun < 1.0  # all of them would take 4 s
