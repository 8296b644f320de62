"""The messages of gRPC's calls: whole, compressed, cut out of what came, and written by hand as the library does."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.http2 import Client, framed, played

from mlserve.rpc.generated.inference_pb2 import PredictionResponse, PredictionsRequest
from mlserve.rpc.large import cut
from mlserve.rpc.predictions import prediction_head
from mlserve.rpc.stream import LARGE


@pytest.mark.parametrize(
    ("encoding", "pack", "status"),
    [
        ("gzip", gzip.compress, "0"),
        ("deflate", zlib.compress, "0"),
        ("identity", bytes, "13"),  # the flag says that it is compressed
        (None, bytes, "13"),
        ("gzip", bytes, "13"),
        ("gzip", lambda data: gzip.compress(data)[:-9], "13"),
        ("gzip", lambda data: gzip.compress(b"\0" * 1_000_000), "8"),
        ("br", bytes, "12"),
    ],
)
def test_a_compressed_message_is_unpacked_or_refused(encoding: str | None, pack, status: str) -> None:
    def play() -> None:
        client = Client(limit=100_000)
        number = client.begin(grpc_encoding=encoding)
        client.data(number, framed(pack(b"hello" * 10), packed=True))
        fields, data = client.outcome(number)
        assert fields["grpc-status"] == status
        assert data == (framed(b"hello" * 10) if status == "0" else b"")

    played(play)


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"", "13"), (b"\0\0", "13"), (framed(b"abc")[:-1], "13"), (framed(b"a") + framed(b"b"), "12")],
)
def test_a_call_needs_one_whole_message(data: bytes, status: str) -> None:
    def play() -> None:
        client = Client()
        number = client.begin()
        client.data(number, data)
        assert client.outcome(number)[0]["grpc-status"] == status
        assert not client.connection.streams

    played(play)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 3_000_000])
def test_an_answer_has_the_bytes_that_the_library_writes(size: int) -> None:
    body = b"x" * size
    assert prediction_head(size) + body == PredictionResponse(prediction=body).SerializeToString()


@settings(max_examples=50, deadline=None)
@given(
    model=st.text(max_size=5),
    version=st.text(max_size=3),
    sequence=st.none() | st.text(max_size=3),
    inputs=st.dictionaries(st.text(max_size=4), st.binary(max_size=300), max_size=4),
    large=st.text(max_size=4),
)
def test_a_large_request_is_cut_into_what_the_library_reads(
    model: str, version: str, sequence: str | None, inputs: dict[str, bytes], large: str
) -> None:
    inputs[large] = b"L" * LARGE
    request = PredictionsRequest(model_name=model, model_version=version, input=inputs)
    if sequence is not None:
        request.sequence_id = sequence
    found = cut(request.SerializeToString())
    assert found is not None
    assert (found.model_name, found.model_version, found.sequence_id) == (model, version, sequence or "")
    assert {name: bytes(value) for name, value in found.input.items()} == inputs


PLAIN = PredictionsRequest(model_name="m", input={"data": b"L" * LARGE}).SerializeToString()


@pytest.mark.parametrize(
    "message",
    [
        PLAIN[:-1],
        PLAIN + b"\x0a",
        PLAIN + b"\x0a\x05ab",
        PLAIN + b"\x0a\x01\xff",  # a name that is no UTF-8
        PLAIN + b"\x2a\x01x",  # a field that there is not
        PLAIN + b"\x08\x01",  # a number where a text is to be
        PLAIN + b"\x1a\x02\x18\x01",  # as much in an entry of the map
        PLAIN + b"\x0a\xff\xff\xff\xff\xff\xff\x01",
        PredictionsRequest(model_name="m", input={"data": b"small"}).SerializeToString(),
    ],
)
def test_what_is_not_plain_is_left_to_the_library(message: bytes) -> None:
    assert cut(message) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_a_large_request_is_never_read_otherwise_than_by_the_library(tail: bytes) -> None:
    message: Any = PLAIN + tail
    found = cut(message)
    if found is not None:
        request = PredictionsRequest.FromString(message)
        assert (found.model_name, found.model_version, found.sequence_id) == (
            request.model_name,
            request.model_version,
            request.sequence_id,
        )
        assert {name: bytes(value) for name, value in found.input.items()} == dict(request.input)
