"""Which workflow specifications can be run, and what a node gets when the specification says nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.core.workflow_graph import parse_graph
from mlserve.errors import InvalidWorkflow
from mlserve.protocols.workflows import dag_text

MODELS = {"batch-size": 4, "cat": {"url": "cat.mar"}, "dog": {"url": "dog.mar", "batch-size": 8, "timeout-ms": 50}}
DAG = {"pre": ["cat"], "cat": ["dog", "post"], "dog": ["post"]}


def test_a_node_without_settings_of_its_own_gets_those_of_the_workflow() -> None:
    graph = parse_graph("w", {"models": MODELS, "dag": DAG})
    cat, dog, pre = (graph.nodes[name] for name in ("cat", "dog", "pre"))
    assert (cat.model, cat.url, cat.batch_size, cat.timeout_ms, cat.retry_attempts) == (
        "w__cat",
        "cat.mar",
        4,
        10000,
        1,
    )
    assert (dog.batch_size, dog.timeout_ms, dog.max_batch_delay_ms) == (8, 50, 50)
    assert (pre.url, pre.batch_size, pre.max_batch_delay_ms, pre.max_workers) == ("", 1, 0, 1), "a function"
    assert graph.predecessors() == {"pre": [], "cat": ["pre"], "dog": ["cat"], "post": ["cat", "dog"]}
    assert graph.successors["post"] == ()
    assert dag_text(graph.dag) == "{pre=[cat], cat=[dog, post], dog=[post]}"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "'models' and 'dag'"),
        ({"models": {}, "dag": {}}, "'models' and 'dag'"),
        ({"models": {}, "dag": {"a": ["b"], "c": ["b"]}}, "only one start node"),
        ({"models": {}, "dag": {"a": ["a"]}}, "only one start node"),
        ({"models": {}, "dag": {"s": ["a"], "a": ["b"], "b": ["a"]}}, "circle"),
        ({"models": {}, "dag": {"a": "b"}}, "list of node names"),
        ({"models": {"a": {}}, "dag": {"a": []}}, "with a url"),
        ({"models": {"a": "a.mar"}, "dag": {"a": []}}, "with a url"),
        ({"models": {"b": {"url": "b.mar"}}, "dag": {"a": []}}, "not in the dag"),
        ({"models": {"batch-size": 0}, "dag": {"a": []}}, "batch-size must be an integer of 1"),
        ({"models": {"a": {"url": "x", "timeout-ms": "1"}}, "dag": {"a": []}}, "timeout-ms must be"),
        ({"models": {"a": {"url": "x", "retry-attempts": True}}, "dag": {"a": []}}, "retry-attempts must be"),
    ],
)
def test_a_graph_that_cannot_run_is_refused_with_the_reason(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidWorkflow, match=says):
        parse_graph("w", spec)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4), max_size=6))
def test_an_accepted_graph_always_has_an_order(dag: dict[str, list[str]]) -> None:
    try:
        graph = parse_graph("w", {"models": {}, "dag": dag})
    except InvalidWorkflow:
        return
    before, done = graph.predecessors(), set[str]()
    while len(done) < len(graph.nodes):
        ready = [name for name, names in before.items() if name not in done and set(names) <= done]
        assert ready, "nodes wait for each other"
        done.update(ready)
