"""What a batch costs, as far as answered batches tell."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.core.costs import KEPT, STALE, CostModel


def learned(batches: list[tuple[int, float]], largest: int = 16) -> CostModel:
    costs = CostModel(largest)
    for size, seconds in batches:
        costs.observe(size, seconds)
    costs.refit()
    return costs


def test_nothing_is_claimed_before_anything_was_seen() -> None:
    costs = CostModel(8)
    costs.refit()
    assert costs.at(8) == 0.0


@given(each=st.floats(1e-6, 1e-2), fixed=st.floats(0, 1e-1), sizes=st.sets(st.integers(1, 16), min_size=2))
def test_a_linear_cost_is_found_from_any_two_sizes(each: float, fixed: float, sizes: set[int]) -> None:
    costs = learned([(size, each * size + fixed) for size in sizes])
    for size in range(1, 17):
        assert costs.at(size) == pytest.approx(each * size + fixed, rel=1e-6, abs=1e-9)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_tenth_of_outliers_and_jitter_do_not_bend_the_line(seed: int) -> None:
    rng = random.Random(seed)
    batches = []
    for size in (1, 2, 4, 6, 8, 12, 16):
        slow = rng.randrange(16)
        for turn in range(16):
            jitter = 1 + 0.05 * rng.random()
            batches.append((size, (0.002 + 0.0005 * size) * jitter * (10 if turn == slow else 1)))
    costs = learned(batches)
    for size in range(1, 17):
        assert costs.at(size) == pytest.approx(0.002 + 0.0005 * size, rel=0.08)


def test_one_size_does_not_make_smaller_batches_look_quicker() -> None:
    assert learned([(16, 0.016)] * 20).at(1) == pytest.approx(0.016)


def test_a_step_is_not_smoothed_away_where_it_was_seen() -> None:
    costs = learned([(size, 0.004 * -(-size // 8)) for size in range(1, 17) for _ in range(5)])
    assert costs.at(8) == pytest.approx(0.004)
    assert costs.at(9) == pytest.approx(0.008)


def test_a_model_that_became_slower_is_believed_within_its_last_batches() -> None:
    costs = CostModel(8)
    for seconds in [0.001] * 1000 + [0.003] * (KEPT // 2 + 1):
        costs.observe(8, seconds)
    costs.refit()
    assert costs.at(8) == pytest.approx(0.003)


def test_sizes_of_long_ago_say_nothing_about_today() -> None:
    costs = CostModel(8)
    for _ in range(5):
        costs.observe(1, 1.0)
    for _ in range(STALE + 1):
        costs.observe(4, 0.004)
        costs.observe(8, 0.008)
    costs.refit()
    assert costs.at(1) == pytest.approx(0.001)
