from hypothesis import given
from hypothesis import strategies as st

from mlserve.core.lifecycle import Backoff


def _delays(backoff, count, now=0.0):
    delays = []
    for _ in range(count):
        delay = backoff.failed(now)
        delays.append(delay)
        if delay is None:
            break
        now += delay
    return delays


def test_waits_grow_and_are_capped():
    assert _delays(Backoff(1e9), 13) == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 60, 60]


def test_the_first_wait_is_the_settings_and_the_others_grow_from_it():
    assert _delays(Backoff(1e9, first=1.0), 7) == [1, 1, 2, 3, 5, 8, 13]


def test_a_worker_that_was_ready_for_a_minute_begins_anew():
    backoff = Backoff(1e9)
    assert _delays(backoff, 5) == [0, 1, 1, 2, 3]
    backoff.ready(100.0)
    assert backoff.failed(160.0) == 0


def test_a_worker_that_dies_soon_after_loading_waits_longer_each_time():
    backoff = Backoff(1e9)
    now, delays = 0.0, []
    for _ in range(6):
        backoff.ready(now)
        now += 59.0
        delays.append(backoff.failed(now))
    assert delays == [0, 1, 1, 2, 3, 5]


def test_tries_end_with_the_window_counted_from_the_first_failure():
    assert _delays(Backoff(10.0), 100, now=1000.0) == [0, 1, 1, 2, 3, None]
    assert _delays(Backoff(0.0), 1) == [None]


def test_a_later_series_of_failures_has_a_window_of_its_own():
    backoff = Backoff(10.0)
    assert backoff.failed(0.0) == 0
    backoff.ready(1.0)
    assert backoff.failed(500.0) == 0


@given(st.floats(0, 1000), st.lists(st.floats(0, 30), max_size=200))
def test_no_try_is_planned_outside_the_window(window, gaps):
    backoff, now = Backoff(window), 0.0
    for gap in gaps:
        delay = backoff.failed(now)
        if delay is None:
            assert now + 60 >= window
            return
        assert 0 <= delay <= 60
        assert now + delay < window
        now += delay + gap
