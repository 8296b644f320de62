"""Items of a batch that are written from bytes kept of the request before, and not encoded anew."""

import msgspec
import pytest

from mlserve.core.job import Batch, Job
from mlserve.core.messages import InferenceRequest, Like, Part
from mlserve.engine.local.batches import Outgoing
from mlserve.wire.payload import ReceivedBatch

HEADERS = [(b"Host", b"a"), (b"content-type", b"text/plain")]


def outgoing(*requests):
    jobs = [Job() for _ in requests]
    for job, request in zip(jobs, requests, strict=True):
        job.request = request
    return Outgoing(Batch(1, jobs, 0.0), None)


@pytest.mark.parametrize("name", ["i", "i" * 31, "i" * 32, "1d6a3a2e-5c0b-4f6e-a7c1-0123456789ab", "i" * 128])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 1023, 1024, 65_535, 65_536])
def test_kept_bytes_say_the_same_as_the_whole_item(name, size):
    like, data = Like("text/plain"), b"x" * size
    for explain, url_path in ((False, ""), (True, "a/b"), (False, None)):
        kept = InferenceRequest(name.encode(), None, HEADERS, explain, url_path, like=Like("text/plain"), data=data)
        whole = InferenceRequest(name, [Part("body", data, "text/plain")], HEADERS, explain, url_path)
        one, other = outgoing(kept), outgoing(whole)
        assert b"".join(one.meta) == b"".join(other.meta)
        assert (one.meta_length, one.length, one.bodies) == (other.meta_length, other.length, other.bodies)
    again = [outgoing(InferenceRequest(name.encode(), None, HEADERS, like=like, data=data)).meta for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize("count", [1, 15, 16, 300])
def test_a_batch_of_any_size_is_read_as_it_was_sent(count):
    like = Like("")
    out = outgoing(*(InferenceRequest(b"%d" % at, None, HEADERS, like=like, data=b"x" * at) for at in range(count)))
    meta = b"".join(out.meta)
    assert len(meta) == out.meta_length
    items = msgspec.msgpack.decode(meta, type=ReceivedBatch).items
    assert [(item.request_id, item.parts[0].length) for item in items] == [(str(at), at) for at in range(count)]


def test_a_request_with_headers_of_its_own_is_not_written_with_those_of_others():
    like = Like("text/plain")
    outgoing(InferenceRequest(b"1", None, HEADERS, like=like, data=b"x"))
    request = InferenceRequest(b"2", None, HEADERS, like=like, data=b"y")
    request.own_headers([*HEADERS, (b"sequence", b"7")])
    out = outgoing(request, InferenceRequest(b"3", None, HEADERS, like=like, data=b"z"))
    own, other = msgspec.msgpack.decode(b"".join(out.meta), type=ReceivedBatch).items
    assert own.headers == [*HEADERS, (b"sequence", b"7")]
    assert (own.parts[0].content_type, own.request_id) == ("text/plain", "2")
    assert other.headers == HEADERS
