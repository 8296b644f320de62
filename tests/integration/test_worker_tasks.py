"""Asynchronous handlers in a real worker: side by side, in any order, and none of them another's problem."""

import pytest
from support.worker_driver import Driver, wait_for

from mlserve.wire.frames import Kind, frame


@pytest.fixture
def driver():
    driver = Driver()
    assert driver.load("waits_async", async_communication=True)[0] == Kind.READY
    yield driver
    driver.close()


def following(driver):
    """The next frame that is no sign of life."""
    while (got := driver.next())[0] == Kind.PONG:
        pass
    return got


def signs_of_life(driver):
    """How many come until there is silence for as long as the socket waits."""
    count = 0
    try:
        while driver.next()[0] == Kind.PONG:
            count += 1
    except TimeoutError:
        return count
    raise AssertionError("an answer, not silence")


def answer(driver):
    """The next answer: batch id, its body or error."""
    kind, number, meta, body = following(driver)
    assert kind == Kind.RESULT, kind
    return number, meta.items[0].error or body.decode()


def test_requests_are_answered_in_the_order_in_which_they_are_done(driver):
    for number, body in enumerate((b"meet 2 late", b"meet 2 soon", b"meet 2 soon")):
        driver.batch(number, body)
    assert {answer(driver) for _ in range(2)} == {(1, "meet 2 soon"), (2, "meet 2 soon")}
    driver.batch(3, b"meet 2 late")
    assert {answer(driver) for _ in range(2)} == {(0, "meet 2 late"), (3, "meet 2 late")}


def test_one_that_fails_fails_alone_and_each_has_a_context_of_its_own(driver):
    driver.batch(1, b"0.1")
    driver.batch(2, b"raise")
    kind, number, meta, _ = following(driver)
    assert (kind, number, meta.items[0].error) == (Kind.RESULT, 2, "handler_failed")
    assert [record.name for record in meta.metrics] == ["seen", "seen"]
    _, number, meta, body = following(driver)
    assert (number, body) == (1, b"0.1 for r0")
    assert meta.items[0].headers == [("asked", "0.1")]


def test_pieces_of_two_requests_come_as_they_are_made(driver):
    driver.batch(1, b"stream")
    driver.batch(2, b"send")
    pieces, ended = {1: [], 2: []}, {}
    while len(ended) < 2:
        kind, number, _meta, body = following(driver)
        if kind == Kind.CHUNK:
            pieces[number].append(body)
        else:
            ended[number] = body
    assert pieces == {1: [b"0 ", b"1 ", b"2 "], 2: [b"early "]}
    assert ended == {1: b"", 2: b"late"}


def test_the_task_of_a_client_that_is_gone_is_cancelled(driver):
    driver.batch(1, b"spins")
    driver.batch(2, b"0.05")
    assert answer(driver)[0] == 2
    driver.cancel(1, 0)
    assert answer(driver) == (1, "cancelled")
    driver.batch(3, b"cancelled")
    assert "spins" in answer(driver)[1]


def test_one_that_is_cancelled_before_it_begins_is_answered_as_well(driver):
    send, frames = driver.send, []
    driver.send = frames.append
    driver.batch(1, b"spins")
    driver.cancel(1, 0)
    send(b"".join(frames))
    assert answer(driver) == (1, "cancelled")


def test_a_worker_that_computes_gives_signs_of_life_and_a_blocked_one_none(driver):
    driver.batch(1, b"spins")
    assert driver.next()[0] == Kind.PONG
    driver.batch(2, b"stuck")
    driver.sock.settimeout(2.5)
    assert signs_of_life(driver) < 3


def test_the_handler_can_end_the_process(driver):
    driver.batch(1, b"exit")
    assert driver.end()[0] == 7


def test_when_the_server_is_gone_the_worker_ends_with_requests_in_flight(driver):
    driver.batch(1, b"spins")
    driver.sock.close()
    wait_for(lambda: driver.process.poll() is not None)
    assert driver.end()[0] == 0


def test_it_ends_when_it_is_told_to(driver):
    driver.batch(1, b"0.01")
    assert answer(driver)[0] == 1
    driver.send(frame(Kind.DRAIN))
    assert driver.end()[0] == 0
