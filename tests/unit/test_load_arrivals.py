"""Moments of an open loop, and what people write for durations and lists."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.errors import SettingError
from mlserve.load.arrivals import arrivals
from mlserve.load.units import duration_text, numbers_of, seconds_of


@pytest.mark.parametrize("kind", ["poisson", "constant"])
@given(rate=st.floats(0.1, 1e5), seed=st.integers(0, 99))
def test_moments_go_back(kind: str, rate: float, seed: int) -> None:
    moments = list(itertools.islice(arrivals(kind, rate, seed), 50))
    assert moments == sorted(moments)
    assert moments[0] >= 0


def test_constant_arrivals_drift() -> None:
    assert next(itertools.islice(arrivals("constant", 3.0), 3_000_000, None)) == 1_000_000.0


def test_poisson_arrivals_have_another_rate_or_are_regular() -> None:
    moments = list(itertools.islice(arrivals("poisson", 200.0, seed=7), 20_000))
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    mean = sum(gaps) / len(gaps)
    spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert mean == pytest.approx(1 / 200, rel=0.03)
    assert spread == pytest.approx(mean, rel=0.05)  # of an exponential distribution they are the same


def test_poisson_run_cannot_be_repeated() -> None:
    def first(seed: int) -> list[float]:
        return list(itertools.islice(arrivals("poisson", 10, seed), 5))

    assert first(1) == first(1) != first(2)


@pytest.mark.parametrize("rate", [0, -1, math.nan, 2e6])
def test_rate_that_never_comes_is_taken(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        arrivals("constant", rate)
    with pytest.raises(ValueError, match="poisson or constant"):
        arrivals("bursts", 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("50ms", 0.05), ("2s", 2.0), ("1.5", 1.5), ("500us", 0.0005), (" 1 m ", 60.0), ("2h", 7200.0), ("0", 0.0)],
)
def test_duration_is_misread(text: str, seconds: float) -> None:
    assert seconds_of(text, "--duration") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "fast", "-1s", "1d", "1s2", "nan", "inf", "1e3"])
def test_nonsense_is_a_duration(text: str) -> None:
    with pytest.raises(SettingError, match="--duration"):
        seconds_of(text, "--duration")


def test_list_of_levels_is_misread() -> None:
    assert numbers_of("1, 8,32", "--concurrency", whole=True) == [1, 8, 32]
    assert numbers_of("0.5,1e3", "--rate", whole=False) == [0.5, 1000]


@pytest.mark.parametrize("text", ["", "0", "1,,2", "-3", "2.5", "many", "nan"])
def test_nonsense_is_a_level(text: str) -> None:
    with pytest.raises(SettingError, match="--concurrency"):
        numbers_of(text, "--concurrency", whole=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.234, "1.23 s"),
        (0.0123, "12.3 ms"),
        (0.9999, "1.00 s"),
        (87e-6, "87.0 µs"),
        (0.9994, "999 ms"),
        (1e4, "10,000 s"),
    ],
)
def test_duration_is_shown_with_the_wrong_unit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
    assert duration_text(math.nan) == "–"
