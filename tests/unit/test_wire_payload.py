"""Metadata survives the wire, and metadata that is not what it says is refused."""

import msgspec
import pytest

from mlserve.wire.frames import encode_meta
from mlserve.wire.payload import BatchMeta, ItemMeta, ItemResult, Load, MetricRecord, PartMeta, ReceivedItem, ResultMeta


@pytest.mark.parametrize(
    "meta",
    [
        BatchMeta([ItemMeta("id", [PartMeta("body", "text/plain", 3, 64)], [(b"A", b"\xff")], True, None)]),
        ResultMeta(
            [ItemResult(3, "x", 418, "teapot", [("a", "b")], "cancelled", "m", "d", 64)],
            1.0,
            2.0,
            3.0,
            metrics=[MetricRecord("n", 1.5, "ms", "gauge", [("a", "b")], 0)],
        ),
        Load("m", "1.0", "/dir", "handler", {"model": {"modelName": "m"}}, {"a": [1, None]}, gpu_id=0),
    ],
)
def test_metadata_comes_back_equal(meta):
    assert msgspec.msgpack.decode(encode_meta(meta), type=type(meta)) == meta


@pytest.mark.parametrize("wrong", [[], [1], [[[1]]], {"items": []}, None, [[["id", [["body", "", "long"]], []]]]])
def test_batch_of_another_shape_is_refused(wrong):
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encode_meta(wrong) if wrong is not None else b"\xc0", type=BatchMeta)


def test_results_do_not_share_their_headers():
    first, second = ItemResult(), ItemResult()
    first.headers.append(("a", "b"))
    assert second.headers == []


HEADERS = [(b"Host", b"a"), (b"X-Bytes", b"\xff")]


@pytest.mark.parametrize("sent", [HEADERS, encode_meta(HEADERS)], ids=["a list", "its encoding"])
def test_worker_reads_headers_in_either_form(sent):
    item = msgspec.msgpack.decode(encode_meta(("id", [], sent)), type=ReceivedItem)
    assert item.headers == HEADERS
