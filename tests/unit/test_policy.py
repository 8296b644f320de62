"""Batching decisions, one situation at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.core.adaptive import Adaptive
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.core.policies import make_policy
from mlserve.core.policy import Decision, Eager, View, Window
from mlserve.errors import InvalidInput

views = st.builds(
    View,
    pending=st.integers(0, 50),
    age=st.floats(0, 1),
    idle=st.integers(0, 3),
    room=st.integers(0, 3),
    expected=st.integers(0, 10),
    took=st.floats(0, 10),
    quiet=st.floats(0, 10),
    bulk=st.integers(0, 50),
)


def test_eager_does_not_make_a_lone_request_wait() -> None:
    assert Eager(8, 0.005).decide(View(1, 0.0, idle=1, room=0)) == Decision(1)


def test_eager_does_not_bind_a_partial_batch_to_a_busy_worker_however_old_it_is() -> None:
    assert Eager(8, 0.005).decide(View(7, 1.0, idle=0, room=1)) == Decision(0)


@pytest.mark.parametrize("view", [View(8, 0.0, 0, 1), View(20, 0.0, 0, 1)])
def test_eager_fills_the_second_slot_with_a_full_batch(view: View) -> None:
    assert Eager(8, 0.005).decide(view) == Decision(8)


def test_eager_does_not_let_clients_that_come_back_together_fall_apart_into_small_batches() -> None:
    policy = Eager(8, 0.005)

    def just_answered(pending: int = 1, expected: int = 8, took: float = 0.2, quiet: float = 0.0005) -> View:
        return View(pending, 0.0, idle=1, room=0, expected=expected, took=took, quiet=quiet)

    assert policy.decide(just_answered()).wait == pytest.approx(0.0035)
    assert policy.decide(just_answered(pending=8)) == Decision(8)
    assert policy.decide(just_answered(quiet=0.0041)) == Decision(1), "longer than 2 % of the batch's time"
    assert policy.decide(just_answered(took=10.0)).wait == pytest.approx(0.0045), "longer than the delay"
    assert policy.decide(just_answered(expected=1)) == Decision(1), "a lone client waits"


@pytest.mark.parametrize(
    ("view", "take"),
    [
        (View(8, 0.0, idle=1, room=0, bulk=2), 2),
        (View(1, 0.0, idle=0, room=1, bulk=2), 1),
        (View(5, 0.0, idle=0, room=1, bulk=2), 2),
        (View(5, 0.0, idle=0, room=0, bulk=2), 0),
        (View(20, 0.0, idle=0, room=1, bulk=32), 8),
    ],
)
def test_eager_does_not_keep_a_worker_waiting_for_bodies_that_only_have_to_be_carried(view: View, take: int) -> None:
    assert Eager(8, 0.005).decide(view) == Decision(take)


def test_window_waits_for_a_full_batch_although_a_worker_is_idle() -> None:
    decision = Window(8, 0.005).decide(View(7, 0.001, idle=1, room=0))
    assert decision.take == 0
    assert decision.wait == pytest.approx(0.004)


def test_window_does_not_use_a_second_slot() -> None:
    assert Window(8, 0.005).decide(View(20, 1.0, idle=0, room=1)) == Decision(0)


@given(policy=st.sampled_from([Eager(8, 0.005), Window(8, 0.005), Adaptive(8, 0.005, 0.01)]), view=views)
def test_a_policy_never_takes_more_than_there_is_or_fits_and_never_stalls(
    policy: Eager | Window | Adaptive, view: View
) -> None:
    decision = policy.decide(view)
    take, wait = decision.take, decision.wait
    assert 0 <= take <= min(view.pending, policy.batch_size)
    if take:
        assert view.idle or view.room
    if view.pending and view.idle and not take:
        assert wait is not None
        assert 0 < wait <= policy.delay


def test_an_unknown_policy_is_refused_by_name() -> None:
    spec = ModelSpec(ModelKey("m", "1"), "/x", "h", batch_policy="greedy")
    with pytest.raises(InvalidInput, match=r"'greedy': use one of adaptive, bucket, eager, window"):
        make_policy(spec)
