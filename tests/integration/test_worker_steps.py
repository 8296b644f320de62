"""Continuous batching in a real worker: who is in a step, what comes out of it, and what a failure takes along."""

import pytest
from support.worker_driver import Driver

from mlserve.wire.frames import Kind

SEQUENCE = b"ts_request_sequence_id"


@pytest.fixture
def worker():
    drivers = []

    def start(**config):
        drivers.append(Driver())
        assert drivers[-1].load("counts_down", config=config, continuous_batching=True)[0] == Kind.READY
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.close()


def ask(driver, number, body, **options):
    driver.batch(number, body, name=f"q{number}.", **options)


def until(driver, *numbers):
    """What comes until these are answered: batch id -> pieces with their headers, the answer last."""
    got = {}
    left = set(numbers)
    while left:
        kind, number, meta, body = driver.next()
        if kind == Kind.CHUNK:
            got.setdefault(number, []).append((body.decode(), dict(meta.headers)))
        else:
            assert kind == Kind.RESULT
            (item,) = meta.items
            left.discard(number)
            got.setdefault(number, []).append((item.error or body.decode(), dict(item.headers)))
    return got


def texts(answers):
    return [text for text, _ in answers]


def test_a_request_is_in_every_step_until_its_criterion_says_stop(worker):
    driver = worker()
    ask(driver, 1, b"3")
    answers = until(driver, 1)[1]
    assert texts(answers) == ["q1.0:3 of 1|", "q1.0:2 of 1|", "q1.0:1 of 1|", "q1.0:0 of 1|"]
    assert [headers["step"] for _, headers in answers] == ["1", "2", "3", "4"]


def test_an_answer_that_is_no_stream_is_whole(worker):
    driver = worker()
    ask(driver, 1, b"x")
    assert until(driver, 1) == {1: [("q1.0:x of 1|", {"step": "1"})]}


def test_a_request_joins_those_that_run_and_leaves_before_them(worker):
    driver = worker(pause=0.05)
    ask(driver, 1, b"60")
    assert driver.next()[0] == Kind.CHUNK
    ask(driver, 2, b"1")
    got = until(driver, 2)
    assert texts(got[2]) == ["q2.0:1 of 2|", "q2.0:0 of 2|"]
    assert 1 <= len(got[1]) < 50


def test_one_whose_client_is_gone_leaves_at_the_next_step(worker):
    driver = worker(pause=0.05)
    ask(driver, 1, b"1000")
    ask(driver, 2, b"5")
    assert driver.next()[0] == Kind.CHUNK
    driver.cancel(1, 0)
    got = until(driver, 1, 2)
    assert texts(got[1])[-1] == "cancelled"
    assert texts(got[2])[-1] == "q2.0:0 of 1|"
    assert any("Removing job: q1.0" in record.message for record in driver.logs)


def test_only_one_request_of_a_sequence_joins_at_a_step(worker):
    driver = worker(pause=0.1)
    ask(driver, 1, b"9")
    for number in (2, 3, 4):
        ask(driver, number, b"x", headers=[(SEQUENCE, b"s" if number < 4 else b"t")])
    got = until(driver, 1, 2, 3, 4)
    steps = {number: int(got[number][0][1]["step"]) for number in (2, 3, 4)}
    assert steps[2] == steps[4] < steps[3]


@pytest.mark.parametrize("body", [b"raise", b"criteria"])
def test_a_failure_ends_what_was_in_the_step_and_the_next_request_is_served(worker, body):
    driver = worker(pause=0.05)
    ask(driver, 1, b"1000")
    assert driver.next()[0] == Kind.CHUNK
    ask(driver, 2, body)
    got = until(driver, 1, 2)
    assert texts(got[1])[-1] == texts(got[2])[-1] == "handler_failed"
    ask(driver, 3, b"x")
    assert texts(until(driver, 3)[3]) == ["q3.0:x of 1|"]


def test_a_body_that_cannot_be_decoded_fails_alone(worker):
    driver = worker(pause=0.02)
    ask(driver, 1, b"5")
    ask(driver, 2, b"{", content_type="application/json")
    got = until(driver, 1, 2)
    assert texts(got[2]) == ["invalid_input"]
    assert texts(got[1])[-1].startswith("q1.0:0")
