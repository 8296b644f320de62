import itertools

import pytest

from mlserve.core.lifecycle import (
    VERSION_TABLE,
    WORKER_TABLE,
    IllegalTransition,
    VersionEvent,
    VersionState,
    WorkerEvent,
    WorkerState,
    advance,
    advance_version,
    version_event,
)

LEGAL = """
STARTING -HELLO-> LOADING      STARTING -DIED-> BACKOFF     STARTING -STOP-> DRAINING
LOADING  -LOADED-> READY       LOADING  -DIED-> BACKOFF     LOADING  -STOP-> DRAINING
                               READY    -DIED-> BACKOFF     READY    -STOP-> DRAINING
                               DRAINING -DIED-> STOPPED
BACKOFF  -RETRY-> STARTING     BACKOFF  -GIVE_UP-> FAILED   BACKOFF  -STOP-> STOPPED
                                                            FAILED   -STOP-> STOPPED
"""


def _legal():
    words = LEGAL.split()
    return {
        (WorkerState[state], WorkerEvent[arrow.strip("->")]): WorkerState[after]
        for state, arrow, after in zip(words[::3], words[1::3], words[2::3], strict=True)
    }


@pytest.mark.parametrize(("state", "event"), list(itertools.product(WorkerState, WorkerEvent)))
def test_a_worker_takes_no_step_that_is_not_drawn(state, event):
    after = _legal().get((state, event))
    if after is None:
        with pytest.raises(IllegalTransition, match=f"{event.name} cannot happen in state {state.name}"):
            advance(state, event)
    else:
        assert advance(state, event) is after


@pytest.mark.parametrize(("state", "event"), list(itertools.product(VersionState, VersionEvent)))
def test_a_version_on_its_way_out_never_comes_back(state, event):
    leaving = (VersionState.DRAINING, VersionState.UNLOADED)
    if (state, event) in VERSION_TABLE:
        after = advance_version(state, event)
        assert (state in leaving) <= (after in leaving)
        assert (event is VersionEvent.DRAIN) <= (after is VersionState.DRAINING)
    else:
        assert state in leaving or event is VersionEvent.DRAINED
        with pytest.raises(IllegalTransition):
            advance_version(state, event)


@pytest.mark.parametrize(
    ("table", "start", "ends"),
    [
        (WORKER_TABLE, WorkerState.STARTING, {WorkerState.STOPPED}),
        (VERSION_TABLE, VersionState.REGISTERED, {VersionState.UNLOADED}),
    ],
)
def test_no_state_is_a_trap_and_none_is_out_of_reach(table, start, ends):
    reached = {start}
    while new := {after for (state, _), after in table.items() if state in reached} - reached:
        reached |= new
    assert reached == set(type(start))
    assert reached - {state for state, _ in table} == ends


@pytest.mark.parametrize(
    ("ready", "wanted", "state"),
    [
        (0, 0, VersionState.REGISTERED),
        (1, 0, VersionState.REGISTERED),
        (0, 2, VersionState.LOADING),
        (1, 2, VersionState.DEGRADED),
        (2, 2, VersionState.READY),
        (3, 2, VersionState.READY),
    ],
)
def test_a_version_is_ready_only_with_all_its_workers(ready, wanted, state):
    assert advance_version(VersionState.LOADING, version_event(ready, wanted)) is state
