"""Quantiles out of buckets: as near to the sorted values as is said, in memory that does not grow."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.load.histogram import LARGEST, RELATIVE_ERROR, TICK, Histogram, bounds_of, bucket_of

SECONDS = st.floats(0, 7200, allow_subnormal=False)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


def nearest_rank(values: list[float], share: float) -> float:
    return sorted(values)[max(1, math.ceil(round(share * len(values), 6))) - 1]


@given(st.lists(SECONDS, min_size=1, max_size=200), st.floats(0, 1))
def test_quantile_is_farther_from_the_right_value_than_stated(values: list[float], share: float) -> None:
    exact = nearest_rank(values, share)
    assert abs(filled(values).quantile(share) - exact) <= exact * RELATIVE_ERROR + TICK


@given(st.lists(SECONDS, min_size=1, max_size=50), st.lists(SECONDS, max_size=50))
def test_merged_counts_differ_from_those_of_all_values(left: list[float], right: list[float]) -> None:
    merged = filled(left)
    merged.merge(filled(right))
    together = filled(left + right)
    shares = [0, 0.3, 0.5, 0.99, 1]
    assert merged.quantiles(shares) == together.quantiles(shares)
    assert merged.count == together.count
    assert merged._counts == together._counts


@given(st.integers(0, int(LARGEST / TICK)))
def test_value_is_outside_its_bucket_or_the_bucket_too_wide(tick: int) -> None:
    low, high = bounds_of(bucket_of(tick))
    assert low <= tick <= high
    assert high - low <= low / 512


def test_buckets_leave_gaps_or_overlap() -> None:
    end = -1
    for bucket in range(bucket_of(int(LARGEST / TICK))):
        low, high = bounds_of(bucket)
        assert low == end + 1
        end = high


@given(st.lists(SECONDS, min_size=1, max_size=50))
def test_extremes_are_rounded(values: list[float]) -> None:
    histogram = filled(values)
    assert histogram.quantile(0) == min(values)
    assert histogram.quantile(1) == max(values)
    assert histogram.mean == pytest.approx(sum(values) / len(values))


def test_99th_of_100_is_taken_for_the_maximum() -> None:
    assert filled([0.001] * 99 + [1.0]).quantile(0.99) == pytest.approx(0.001, rel=RELATIVE_ERROR)


def test_memory_grows_with_values() -> None:
    histogram = Histogram()
    before = sys.getsizeof(histogram._counts)
    for number in range(20_000):
        histogram.add(number * 0.37)
    histogram.add(1e9)  # 30 years
    assert sys.getsizeof(histogram._counts) == before < 160_000
    assert histogram.quantile(1) == 1e9


def test_empty_histogram_has_a_number() -> None:
    assert math.isnan(Histogram().quantile(0.5))
    assert math.isnan(Histogram().mean)
    with pytest.raises(ValueError, match="between 0 and 1"):
        filled([1.0]).quantile(1.5)


def test_clock_that_goes_back_breaks_the_count() -> None:
    histogram = filled([-0.5, 0.1])
    assert histogram.count == 2
    assert histogram.quantile(0.5) <= 0
