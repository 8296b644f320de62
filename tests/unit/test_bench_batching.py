"""What the figures of ``scripts/bench batching`` rest on: ratios within a round, rates in whole batches."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the benchmarks are not installed
from benchmarks import batching, wrk


def test_a_variant_is_compared_with_what_was_before_and_after_it_in_its_own_round():
    figures = {"eager": [10, 20, 100, 100], "adaptive": [15, 50]}
    assert batching.ratios(figures, "eager", "adaptive") == ([1.0, 0.5], [2.0, 1.0])


def test_a_round_that_lacks_a_figure_is_no_ratio():
    with pytest.raises(ValueError, match="zip"):
        batching.ratios({"eager": [10, 20, 30], "adaptive": [15, 16]}, "eager", "adaptive")


def test_a_rate_counts_whole_batches_not_the_ones_cut_off():
    """Eight answers together every second, from 0.7 s on, and half a batch at the end."""
    times = [0.7 + second + place * 0.001 for second in range(10) for place in range(8)]
    assert wrk.steady_rate([*times, 10.7, 10.701]) == pytest.approx(8, rel=0.01)


def test_a_rate_of_too_few_answers_is_refused():
    with pytest.raises(RuntimeError, match="31 answers are too few"):
        wrk.steady_rate(range(31))
