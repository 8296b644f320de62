"""MicroBatching keeps order, uses the threads it was given, and never hangs on an error."""

import gc
import threading
import weakref

import pytest

from mlserve.compat.ts.handler_utils.micro_batching import MicroBatching
from mlserve.handler import Context, RequestInfo
from mlserve.handlers.base import BaseHandler


class Handler(BaseHandler):
    def __init__(self, size):  # no super().__init__(), as in handlers in the wild
        self.handle = MicroBatching(self, size)
        self.pieces = []

    def preprocess(self, data):
        self.pieces.append((self.handle.get_micro_batch_idx(), len(data)))
        return data

    def inference(self, data):
        if "bad" in data:
            raise ValueError("bad item")
        return [value * 2 for value in data]

    def postprocess(self, data):
        return data

    def get_insights(self, tensor_data, raw_data, target=0):
        return [f"why {value}" for value in tensor_data]


@pytest.fixture
def made():
    handlers = []

    def make(size=2):
        handlers.append(Handler(size))
        return handlers[-1]

    yield make
    for handler in handlers:
        handler.handle.shutdown()


def test_pieces_come_back_in_order(made):
    handler = made()
    handler.handle.parallelism = {"preprocess": 2, "inference": 3}
    assert handler.handle(list(range(7)), Context("m", "")) == [0, 2, 4, 6, 8, 10, 12]
    assert sorted(handler.pieces) == [(0, 2), (1, 2), (2, 2), (3, 1)]
    assert handler.handle.get_micro_batch_idx() is None


def test_an_error_of_a_phase_is_raised_and_the_next_batch_answered(made):
    handler, context = made(1), Context("m", "")
    with pytest.raises(ValueError, match="bad item"):
        handler.handle(["bad", "bad", 1], context)
    assert handler.handle([1, 2, 3], context) == [2, 4, 6]


def test_explanations_go_through_whole(made):
    handler, context = made(), Context("m", "")
    context.begin([RequestInfo(str(n), (), {"explain": "True"}) for n in range(3)])
    assert handler.handle([1, 2, 3], context) == ["why 1", "why 2", "why 3"]


def test_threads_follow_the_parallelism(made):
    groups = made().handle
    groups.parallelism = {"preprocess": 3}
    groups.parallelism = {"postprocess": 2}
    counts = {phase: len(group) for phase, group in groups.thread_groups.items()}
    assert counts == {"preprocess": 3, "inference": 1, "postprocess": 2}
    assert groups.parallelism == {"preprocess": 3, "postprocess": 2}
    groups.parallelism = {"preprocess": 1}
    assert len(groups.thread_groups["preprocess"]) == 1


@pytest.mark.parametrize("wrong", [{"nope": 1}, {"inference": -1}, {"inference": "2"}])
def test_a_parallelism_that_means_nothing_is_refused(made, wrong):
    with pytest.raises(ValueError, match="expected a number of threads"):
        made().handle.parallelism = wrong


def test_no_thread_outlives_its_handler():
    before = threading.active_count()
    handler = Handler(1)
    threads = [worker.thread for group in handler.handle.thread_groups.values() for worker in group]
    gone = weakref.ref(handler.handle)
    del handler
    gc.collect()
    assert gone() is None
    for thread in threads:
        thread.join(timeout=5)
    assert threading.active_count() == before
