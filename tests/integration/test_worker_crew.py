"""Several batches computed at once in one worker: each answered once, with its own requests, and a clean end."""

import os
import time

import pytest
from support.worker_driver import Driver

from mlserve.wire.frames import Kind, frame


@pytest.fixture
def loaded():
    drivers = []

    def start(handler="phases:Phases", threads=2, **settings):
        drivers.append(Driver())
        kind, _, meta, _ = drivers[-1].load(handler, handler_threads=threads, **settings)
        assert kind == Kind.READY, meta
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.close()


def test_batches_do_not_wait_for_each_other(loaded):
    driver = loaded()
    driver.batch(1, b"1.5", name="slow")
    driver.batch(2, b"0.01", name="quick")
    driver.batch(3, b"0.01", name="next")
    found = driver.results(3)
    assert list(found) == [2, 3, 1]
    assert found[1][1][0].split()[:2] == [b"1.5", b"slow0"]
    assert found[2][1][0].split()[:2] == [b"0.01", b"quick0"]


def test_what_a_handler_keeps_of_a_batch_is_not_mixed_up(loaded):
    driver = loaded(threads=3)
    for number in range(30):
        driver.batch(number, b"0.02", b"0.02", name=f"q{number}.")
    for number, (meta, answers) in driver.results(30).items():
        ids = f"q{number}.0 q{number}.1".encode()
        assert all(ids in answer for answer in answers)
        reported = [record.request_id for record in meta.metrics if record.name == "prepared"]
        assert reported == [f"q{number}.0", f"q{number}.1"]


def test_a_bad_item_fails_alone_and_its_batch_counts_once(loaded):
    driver = loaded()
    driver.batch(1, b"0.3", name="long")
    driver.batch(2, b"ok", b"raise", b"ok", name="mixed")
    found = driver.results(2)
    meta, answers = found[2]
    assert [answer[:2] for answer in answers] == [b"ok", "ha", b"ok"]
    assert [record.request_id for record in meta.metrics] == ["mixed0", "mixed2"]
    assert [record.request_id for record in found[1][0].metrics] == ["long0"]


def test_a_lost_device_ends_the_worker_with_its_code_beside_a_running_batch(loaded):
    driver = loaded()
    driver.batch(1, b"0.5")
    driver.batch(2, b"lost")
    assert driver.results(2).keys() == {1, 2}
    assert driver.end()[0] == 5


def test_an_exit_code_of_the_handler_is_kept(loaded):
    driver = loaded("exits:handle")
    driver.batch(1, b"7")
    assert driver.end()[0] == 7


def test_a_thread_that_never_returns_does_not_outlive_a_lost_device(loaded):
    driver = loaded()
    driver.batch(1, b"60")
    driver.batch(2, b"lost")
    began = time.monotonic()
    assert driver.end()[0] == 5
    assert time.monotonic() - began < 30


def test_drain_answers_what_is_there_and_ends(loaded):
    driver = loaded()
    for number in range(4):
        driver.batch(number, b"0.05")
    driver.send(frame(Kind.DRAIN))
    assert driver.results(4).keys() == {0, 1, 2, 3}
    assert driver.end() == (0, "", "")


def test_a_coroutine_function_is_refused_with_the_setting_that_fits():
    driver = Driver()
    try:
        kind, _, meta, _ = driver.load("awaits:handle", handler_threads=2)
        assert kind == Kind.FAILED
        assert "asyncCommunication" in meta.message
    finally:
        driver.close()


def test_threads_of_torch_do_not_add_up_to_more_than_the_worker_has():
    """The handler asked for four in all: OMP_NUM_THREADS is what the server gives to each of its threads."""
    driver = Driver(env={**os.environ, "OMP_NUM_THREADS": "2"})
    try:
        assert driver.load("torch_threads:handle", handler_threads=2)[0] == Kind.READY
        driver.batch(1, b"")
        driver.batch(2, b"")
        assert [answers for _, answers in driver.results(2).values()] == [[b"2 False"], [b"2 False"]]
    finally:
        driver.close()
