"""The search for the best batch size, on simulated machines that jitter and whose host takes cores for seconds."""

from __future__ import annotations

import random
from statistics import fmean, median

import pytest
from support.core_fakes import FakeClock
from support.noisy import NoisyRig, Steal, by_rate
from support.simulation import Cost, linear

from mlserve.core.adaptive import Adaptive
from mlserve.core.best_size import BestSize
from mlserve.core.duel import MOST, Duel, Turn, gains

TWO_AT_ONCE = by_rate({1: 64, 2: 64, 4: 52, 8: 36}, at_once=2)  # EfficientNet-Lite0, TorchScript, two cores
ONE = by_rate({1: 30, 2: 29, 4: 27.5, 8: 26})  # the same, one batch at a time
MIDDLE = by_rate({1: 20, 2: 30, 4: 40, 8: 33, 16: 25})
SEEDS = range(7)


def rig_of(
    cost: Cost, seed: int, policy: str = "adaptive", clients: int = 16, noisy: bool = True, **spec: int
) -> NoisyRig:
    """A closed loop on a machine that is the same for every policy with the same ``seed``."""
    steal = Steal(random.Random(seed + 1000)) if noisy else None
    rig = NoisyRig(
        cost, random.Random(seed), jitter=0.05, steal=steal, batch_policy=policy, **{"batch_size": 8, **spec}
    )
    back = random.Random(seed + 2000)
    rig.join(clients, lambda: back.uniform(1e-4, 5e-4))
    return rig


def best_of(rig: NoisyRig) -> int:
    assert isinstance(rig.queue.policy, Adaptive)
    return rig.queue.policy.best


def answered(rig: NoisyRig, seconds: float) -> int:
    """How many clients were answered in the next ``seconds``."""
    before = len(rig.done.latencies)
    rig.clock.advance(seconds)
    return len(rig.done.latencies) - before


def until(rig: NoisyRig, sizes: set[int], limit: float) -> float:
    """Seconds until the best size is one of ``sizes``; at most ``limit``."""
    begun = rig.clock.time()
    while best_of(rig) not in sizes and rig.clock.time() - begun < limit:
        rig.clock.advance(0.1)
    return rig.clock.time() - begun


@pytest.mark.parametrize(
    ("cost", "at_once", "batch_size", "good", "usual", "slow"),
    [(TWO_AT_ONCE, 2, 8, {1, 2}, 6, 12), (ONE, 1, 8, {1, 2}, 15, 40), (MIDDLE, 1, 16, {4}, 12, 40)],
    ids=["two at once", "one at a time", "best in the middle"],
)
def test_a_slow_model_is_not_left_at_a_size_that_is_too_large(
    cost: Cost, at_once: int, batch_size: int, good: set[int], usual: float, slow: float
) -> None:
    times, shares = [], []
    for seed in SEEDS:
        rig = rig_of(cost, seed, handler_threads=at_once, batch_size=batch_size, clients=40)
        times.append(until(rig, good, 60))
        known = rig_of(cost, seed, "eager", handler_threads=at_once, batch_size=min(good), clients=40)
        known.clock.advance(rig.clock.time() - known.clock.time())
        shares.append(answered(rig, 20) / answered(known, 20))
    assert median(times) <= usual, times
    assert sorted(times)[-2] <= slow, times
    assert fmean(shares) >= 0.93, shares


@pytest.mark.parametrize(
    ("cost", "seconds", "least"),
    [
        (linear(0.002, 0.3), 60, 0.955),  # 0.6 s, once; then 16 batches of 304 ms pay for half a one
        (linear(0.03, 0.03), 60, 0.975),
        (linear(0.003, 0.01), 20, 0.98),
        (linear(0.0001, 0.0005), 1.5, 0.985),
        (lambda size: size / 40, 60, 0.98),
    ],
    ids=["300 ms", "by the request", "35 ms", "a millisecond", "any size as good"],
)
def test_trying_sizes_does_not_cost_more_than_it_may_where_the_full_one_is_best(
    cost: Cost, seconds: float, least: float
) -> None:
    shares = []
    for seed in SEEDS[:4]:
        rates = [answered(rig_of(cost, seed, policy), seconds) for policy in ("adaptive", "eager")]
        shares.append(rates[0] / rates[1])
    assert fmean(shares) >= least, shares


@pytest.mark.parametrize("clients", [1, 3, 5, 8, 11])
def test_few_clients_are_not_served_more_slowly_than_by_eager(clients: int) -> None:
    shares = []
    for seed in SEEDS[:4]:
        rigs = [rig_of(TWO_AT_ONCE, seed, one, clients, handler_threads=2) for one in ("adaptive", "eager")]
        counts = [answered(rig, 30) for rig in rigs]
        shares.append(counts[0] / counts[1])
    assert fmean(shares) >= 0.98, shares


def test_a_size_is_not_kept_that_is_no_longer_the_best() -> None:
    times, found = [], []
    for seed in SEEDS[:4]:
        rig = rig_of(TWO_AT_ONCE, seed, handler_threads=2)
        rig.clock.advance(30)
        found.append(best_of(rig))
        rig.cost = linear(0.005, 0.1)
        times.append(until(rig, {8}, 120))
    assert sum(size < 4 for size in found) >= 4, found
    assert median(times) <= 30, times


def test_one_turn_that_a_garbage_collection_is_in_does_not_decide() -> None:
    assert gains([1.0, 1.0, 10.0, 1.0, 1.0]) == [0.0, 0.0]
    assert gains([1.0, 10.0, 1.0, 1.0, 1.0]) == [0.0]


def test_a_machine_that_becomes_slower_in_a_duel_does_not_decide_it() -> None:
    slower = [1.0 * 1.05**turn for turn in range(9)]
    assert gains(slower) == pytest.approx([0.0] * 4)


def turn(cap: int, each: float, requests: int = 8) -> Turn:
    made = Turn(cap, requests, 0.0)
    for at in range(requests // cap):
        made.add(cap, at * cap * each, (at + 1) * cap * each)
    return made


def test_a_duel_of_equals_ends() -> None:
    rng, duel = random.Random(1), Duel(8, 4)
    taken = 0
    while duel.won() is None:
        duel.add(turn(8 if taken % 2 == 0 else 4, rng.lognormvariate(0, 0.3) / 30))
        taken += 1
        assert taken <= 2 * MOST + 1


def test_batches_that_the_load_makes_as_small_are_not_compared() -> None:
    duel = Duel(8, 4)
    first = Turn(8, 8, 0.0)
    for at in range(2):
        first.add(4, at * 0.1, at * 0.1 + 0.1)
    assert duel.add(first)
    assert not duel.add(turn(4, 0.025))


def test_time_in_which_batches_overlap_does_not_count_twice() -> None:
    two = Turn(8, 16, 0.0)
    two.add(8, 0.0, 0.2)
    two.add(8, 0.1, 0.3)
    two.add(8, 0.5, 0.6)
    two.add(8, 0.25, 0.7)
    assert two.busy == pytest.approx(0.3 + 0.4)


def test_batches_that_died_with_their_worker_are_not_waited_for() -> None:
    """Nobody tells a policy of them: without counting them out every later turn would wait for them."""
    size, clock = BestSize(8), FakeClock()
    for _ in range(6):  # 5 of them are lost
        size.sent()
    tried = set()
    for _ in range(400):
        size.sent()
        clock.advance(0.1)
        tried.add(size.cap)
        size.answered(size.cap, 0.1, clock.time())
    assert tried >= {8, 4}
    assert size._out <= 1
