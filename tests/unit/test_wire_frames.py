"""Frames come out as they went in, however the stream is cut; anything else is an error before it costs memory."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.wire.frames import (
    HEADER,
    MAGIC,
    MAX_META,
    VERSION,
    FrameError,
    FrameReader,
    Kind,
    encode_meta,
    frame,
    header,
)
from mlserve.wire.payload import BatchMeta, ItemMeta, ItemResult, PartMeta, ResultMeta

frames = st.lists(
    st.tuples(st.sampled_from(list(Kind)), st.integers(0, 2**32 - 1), st.binary(max_size=40), st.binary(max_size=80)),
    max_size=6,
)


def encoded(kind, batch_id, meta, body):
    return header(kind, batch_id, len(meta), len(body)) + meta + body


def plain(read):
    return [(frm.kind, frm.batch_id, frm.meta, bytes(frm.body)) for frm in read]


@given(frames, st.lists(st.integers(1, 50)))
def test_cuts_in_the_stream_change_nothing(sent, cuts):
    stream = b"".join(encoded(*each) for each in sent)
    reader, read, position = FrameReader(), [], 0
    for cut in [*cuts, len(stream)]:
        if position < len(stream):
            read += reader.feed(stream[position : position + cut])
            position += cut
    read += reader.feed(b"") if position else []
    assert plain(read) == sent


@given(frames)
def test_one_byte_at_a_time_gives_the_same_frames(sent):
    reader, read = FrameReader(), []
    for byte in b"".join(encoded(*each) for each in sent):
        read += reader.feed(bytes([byte]))
    assert plain(read) == sent


def test_frame_is_handed_out_with_its_last_byte_and_not_before():
    data = frame(Kind.PING, 3, {"a": 1}, b"xy")
    reader = FrameReader()
    assert reader.feed(data[:-1]) == []
    assert plain(reader.feed(data[-1:])) == [(Kind.PING, 3, data[16:-2], b"xy")]


def test_bodies_stay_valid_when_more_is_read():
    reader = FrameReader()
    (first,) = reader.feed(frame(Kind.CHUNK, 1, body=b"first") + frame(Kind.CHUNK, 2, body=b"second")[:9])
    reader.feed(b"x" * 3)
    assert bytes(first.body) == b"first"


@pytest.mark.parametrize("byte", [0, 1])
def test_wrong_magic_or_version_is_an_error_with_its_bytes(byte):
    data = bytearray(frame(Kind.PING))
    data[byte] ^= 0xFF
    with pytest.raises(FrameError, match=bytes(data[:4]).hex()):
        FrameReader().feed(bytes(data))


@pytest.mark.parametrize(("meta", "body"), [(MAX_META + 1, 0), (0, 101)])
def test_announced_size_over_the_cap_is_refused_from_the_header_alone(meta, body):
    with pytest.raises(FrameError, match="over the limit"):
        FrameReader(max_body=100).feed(HEADER.pack(MAGIC, VERSION, Kind.BATCH, 0, 1, meta, body))


def test_many_small_reads_of_a_large_frame_are_joined_once():
    body = bytes(1_000_000)
    data = frame(Kind.BATCH, 1, body=body)
    reader, read = FrameReader(), []
    for start in range(0, len(data), 997):
        assert reader._have == start
        read += reader.feed(data[start : start + 997])
    assert len(read) == 1
    assert read[0].body == body


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_but_frame_error(data):
    with contextlib.suppress(FrameError):
        FrameReader().feed(data)


def test_half_a_surrogate_pair_does_not_end_a_worker() -> None:
    """JSON can bring one into a handler, and its exception out."""
    meta = ResultMeta([ItemResult(3, headers=[("x", "\ud800")], message="no \udc00 here")], 1.0, 1.0, 2.0)
    found = msgspec.msgpack.decode(encode_meta(meta), type=ResultMeta)
    assert found.listed == [ItemResult(3, headers=[("x", "\\ud800")], message="no \\udc00 here")]
    whole = BatchMeta([ItemMeta("r\ud800", [PartMeta("p", "", 1)], [(b"h", b"raw \xff")])])
    assert msgspec.msgpack.decode(encode_meta(whole), type=BatchMeta).items[0].headers == [(b"h", b"raw \xff")]
