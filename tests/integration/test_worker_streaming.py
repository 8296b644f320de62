"""Answers in pieces from a real worker: order, interleaving, ends, cancels."""

import pytest
from support.worker_driver import Driver

from mlserve.wire.frames import Kind, frame


@pytest.fixture
def loaded():
    drivers = []

    def start(handler, **settings):
        drivers.append(Driver())
        assert drivers[-1].load(handler, **settings)[0] == Kind.READY
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.close()


def collect(driver):
    """Chunks as (index, bytes) up to the RESULT frame, and that."""
    chunks = []
    while True:
        kind, _, meta, body = driver.next()
        if kind != Kind.CHUNK:
            assert kind == Kind.RESULT
            return chunks, meta, body
        chunks.append((meta.index, body))


def test_pieces_arrive_in_order_and_end_with_an_empty_result(loaded):
    driver = loaded("streams")
    driver.batch(1, b"3")
    chunks, meta, body = collect(driver)
    assert chunks == [(0, b"0 "), (0, b"1 "), (0, b"2 ")]
    assert (meta.items[0].length, meta.items[0].error, body) == (0, "", b"")


def test_streams_of_one_batch_take_turns(loaded):
    driver = loaded("streams")
    driver.batch(1, b"3", b"plain", b"2")
    chunks, meta, body = collect(driver)
    assert [index for index, _ in chunks] == [0, 2, 0, 2, 0]
    assert body == b"plain"
    assert [item.length for item in meta.items] == [0, 5, 0]


def test_stream_that_breaks_fails_alone(loaded):
    driver = loaded("streams")
    driver.batch(1, b"2", b"fail")
    chunks, meta, _ = collect(driver)
    assert [piece for index, piece in chunks if index == 0] == [b"0 ", b"1 "]
    assert [item.error for item in meta.items] == ["", "handler_failed"]
    assert "the stream broke" in meta.items[1].message


def test_cancelled_stream_is_closed_and_the_others_go_on(loaded):
    driver = loaded("streams")
    driver.batch(1, b"wait", b"2")
    assert driver.next()[0] == Kind.CHUNK
    driver.cancel(1, 0)
    _, meta, _ = collect(driver)
    assert [item.error for item in meta.items] == ["cancelled", ""]
    driver.send(frame(Kind.DRAIN))
    assert driver.end()[:2] == (0, "closed\n")


def test_generator_handle_streams_each_request_of_the_batch(loaded):
    driver = loaded("streams_batch")
    driver.batch(1, b"1", b"3")
    chunks, meta, _ = collect(driver)
    assert chunks == [(0, b"0 "), (1, b"0 "), (1, b"1 "), (1, b"2 ")]
    assert [item.error for item in meta.items] == ["", ""]


def test_generator_handle_that_raises_at_once_fails_only_the_bad_item(loaded):
    driver = loaded("streams_batch")
    driver.batch(1, b"not a number", b"1")
    chunks, meta, _ = collect(driver)
    assert chunks == [(1, b"0 ")]
    assert [item.error for item in meta.items] == ["handler_failed", ""]


def test_async_generator_is_streamed(loaded):
    driver = loaded("awaits")
    driver.batch(1, b"stream", b"plain")
    chunks, meta, body = collect(driver)
    assert chunks == [(0, b"one"), (0, b"two")]
    assert ([item.error for item in meta.items], body) == (["", ""], b"plain")


def test_end_of_the_server_ends_a_stream_quietly(loaded):
    driver = loaded("streams")
    driver.batch(1, b"wait")
    assert driver.next()[0] == Kind.CHUNK
    driver.sock.close()
    assert driver.end() == (0, "closed\n", "")


def test_worker_goes_on_after_streams(loaded):
    driver = loaded("streams")
    driver.batch(1, b"fail")
    collect(driver)
    driver.batch(2, b"plain")
    assert driver.result(2)[1] == [b"plain"]
