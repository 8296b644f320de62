"""Readiness in its two meanings: a worker that can answer now, and a worker that is started again counts as one."""

from __future__ import annotations

from typing import Any

import pytest
from support.core_fakes import FakeClock, FakeSlot, make_queue

from mlserve.core.health import judge
from mlserve.core.metrics import ModelStats
from mlserve.core.registry import Registry, VersionHandle


class Pool:
    target = 2

    def __init__(self, live: int) -> None:
        self.live = live


def registry(*, live: int, ready: int, min_workers: int = 2, loaded_at_startup: bool = True) -> Registry:
    queue = make_queue(FakeClock(), min_workers=min_workers, loaded_at_startup=loaded_at_startup)
    pool: Any = Pool(live)
    made = Registry()
    made.add(VersionHandle(queue.spec, queue, pool, ModelStats()))
    for number in range(ready):
        queue.slot_ready(FakeSlot(queue, 9000 + number))
    return made


@pytest.mark.parametrize(
    ("live", "ready", "strict", "lenient"),
    [
        (2, 2, True, True),
        (2, 1, True, True),  # one is started again, the other serves
        (2, 0, False, True),  # both are started again: nobody can be served now
        (1, 1, True, False),  # one was given up: fewer than the model is to keep
        (0, 0, False, False),
    ],
)
def test_a_crash_hides_from_probes_only_where_retries_count(live: int, ready: int, strict: bool, lenient: bool) -> None:
    made = registry(live=live, ready=ready)
    assert judge(made, (), True, False).ready is strict
    assert judge(made, (), True, True).ready is lenient


def test_a_model_that_loads_for_the_first_time_by_api_takes_nothing_out_of_rotation() -> None:
    made = registry(live=1, ready=0, loaded_at_startup=False)
    assert judge(made, (), True, False).ready
    assert judge(made, (), True, False).models == {"m": False}


def test_a_model_without_workers_is_no_reason_to_be_unhealthy() -> None:
    made = registry(live=0, ready=0, min_workers=0)
    assert judge(made, (), True, True).ready
    assert judge(made, (), True, False).ready


def test_nothing_is_ready_while_the_server_starts_or_stops() -> None:
    assert not judge(registry(live=2, ready=2), (), False, True).ready


def test_a_start_up_model_that_did_not_load_counts_by_our_rule_only() -> None:
    assert not judge(Registry(), ("lost",), True, False).ready
    assert judge(Registry(), ("lost",), True, True).ready
