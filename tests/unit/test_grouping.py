"""Items of similar length are computed together, each once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlserve.grouping import groups


def cost(lengths: list[int], together: list[list[int]], call: float) -> float:
    return sum(len(rows) * max(lengths[row] for row in rows) + call for rows in together)


@given(lengths=st.lists(st.integers(1, 60), max_size=40), call=st.floats(0, 500), most=st.sampled_from([0, 1, 3, 8]))
def test_every_item_is_in_one_group_and_no_simpler_way_is_cheaper(lengths: list[int], call: float, most: int) -> None:
    together = groups(lengths, call, most)
    assert sorted(row for rows in together for row in rows) == list(range(len(lengths)))
    assert not most or all(len(rows) <= most for rows in together)
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    for size in (1, most or len(lengths) or 1):
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        assert cost(lengths, together, call) <= cost(lengths, chunks, call) + 1e-6


def test_items_of_one_length_are_not_taken_apart() -> None:
    assert groups([7] * 5, 0.0) == [[0, 1, 2, 3, 4]]
    assert sorted(map(len, groups([7] * 5, 1e9, most=4)))[-1] <= 4
    assert len(groups([7] * 5, 1e9, most=4)) == 2


def test_one_long_item_does_not_make_the_short_ones_long() -> None:
    assert groups([5, 200, 6, 5], 100.0) == [[0, 3, 2], [1]]
