"""The line of a model's queue, beside a deque that is told the same."""

import gc
import weakref
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.core.job import CallbackJob
from mlserve.core.messages import InferenceRequest
from mlserve.core.waiting import Waiting


def job(number):
    return CallbackJob(InferenceRequest(str(number), []), lambda _: None, lambda *_: None)


@given(
    st.lists(st.sampled_from(["append", "append", "append", "popleft", "popleft", "pop", "back", "keep"]), max_size=400)
)
def test_jobs_leave_in_the_order_of_a_deque(steps):
    line, model = Waiting(), deque()
    for number, step in enumerate(steps):
        if step == "append":
            made = job(number)
            line.append(made)
            model.append(made)
        elif step == "back":
            made = [job(number), job(-number)]
            line.put_back(made)
            model.extendleft(reversed(made))
        elif step == "keep":
            left = [one for at, one in enumerate(model) if at % 3]
            line.keep(left)
            model = deque(left)
        elif model and step == "pop":
            line.pop()
            model.pop()
        elif model:
            assert line.first() is model[0]
            assert line.popleft() is model.popleft()
        assert len(line) == len(model)
        assert list(line) == list(model)


def test_a_line_that_is_never_empty_does_not_grow():
    line = Waiting()
    for number in range(50):
        line.append(job(number))
    for number in range(5000):
        line.append(job(number))
        line.popleft()
    assert len(line) == 50
    assert len(line._jobs) <= 2 * 64 + 50


def test_who_has_left_is_not_held():
    class Body(bytearray):
        """Can be referred to weakly."""

    line, body = Waiting(), Body(b"x")
    gone = weakref.ref(body)
    line.append(CallbackJob(InferenceRequest("1", None, data=body), lambda _: None, lambda *_: None))
    line.append(job(2))
    del body
    line.popleft()
    gc.collect()
    assert gone() is None


def test_an_empty_line_has_no_first():
    with pytest.raises(IndexError):
        Waiting().first()
