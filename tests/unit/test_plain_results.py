"""Answers of which a worker says only the lengths."""

import pytest

from mlserve.core.messages import InferenceResponse
from mlserve.engine.local.batches import Malformed, decode_results
from mlserve.wire.arena import ARENA_FROM
from mlserve.wire.payload import ResultMeta
from mlserve.worker.results import Results


def meta(*lengths):
    return ResultMeta([], 0.0, 0.0, 0.0, lengths=list(lengths), content_type="text/plain")


def test_answers_given_by_length_keep_their_order_and_type():
    results = decode_results(meta(1, 0, 2), memoryview(b"abc"), 3, None, [], 1)
    assert [(bytes(one.body), one.content_type) for one in results if isinstance(one, InferenceResponse)] == [
        (b"a", "text/plain"), (b"", "text/plain"), (b"bc", "text/plain"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lengths", "body", "count"),
    [((1, 1), b"abc", 2), ((1, 3), b"abc", 2), ((-1, 4), b"abc", 2), ((3,), b"abc", 2), ((1, 1, 1), b"abc", 2)],
)
def test_lengths_that_do_not_fit_are_the_end_of_the_worker(lengths, body, count):
    with pytest.raises(Malformed):
        decode_results(meta(*lengths), memoryview(body), count, None, [], 1)


def answers(*elements):
    results = Results(len(elements), infer=True, max_size=1 << 30)
    for index, element in enumerate(elements):
        results.put(index, element, None)
    return results


def test_answers_of_one_type_need_no_more_than_their_lengths():
    assert answers(b"a", b"", b"ccc").plain() == ([1, 0, 3], "application/octet-stream")


@pytest.mark.parametrize("elements", [(b"a", "b"), (b"a", ValueError("no")), (b"a", b"x" * ARENA_FROM), ()])
def test_answers_with_more_to_say_are_listed(elements):
    results = answers(*elements)
    assert results.plain() is None
    items, bodies = results.finish()
    assert len(items) == len(bodies) == len(elements)


def test_an_answer_that_was_taken_back_is_not_plain():
    results = answers(b"a", b"b")
    results.refuse(1, "not any more")
    assert results.plain() is None
    assert [item.error for item in results.finish()[0]] == ["", "handler_failed"]
