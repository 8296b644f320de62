"""A workflow's specification: its nodes, how they follow each other, and what each may take.

The format is TorchServe's (a YAML mapping with ``models`` and ``dag``): below ``models`` are defaults and one mapping
per node that is a model; ``dag`` maps a node to the list of those that get its answer. A node that is only in ``dag``
is a function of the workflow's handler file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlserve.errors import InvalidDag, InvalidWorkflow

# key -> (field, default, least value)
_NUMBERS = {
    "min-workers": ("min_workers", 1, 1),
    "max-workers": ("max_workers", 1, 1),
    "batch-size": ("batch_size", 1, 1),
    "max-batch-delay": ("max_batch_delay_ms", 50, 0),
    "retry-attempts": ("retry_attempts", 1, 0),
    "timeout-ms": ("timeout_ms", 10_000, 1),
}


@dataclass(frozen=True)
class Node:
    """One step. ``model`` is the name it is registered under; ``url`` is empty for a function."""

    name: str
    model: str
    url: str = ""
    min_workers: int = 1
    max_workers: int = 1
    batch_size: int = 1
    max_batch_delay_ms: int = 50
    retry_attempts: int = 1  # how often it is tried again
    timeout_ms: int = 10_000  # for one attempt


@dataclass(frozen=True)
class Graph:
    """The nodes by name, and for each the names of those that get its answer, in the order of the specification."""

    nodes: Mapping[str, Node]
    successors: Mapping[str, tuple[str, ...]]
    defaults: Mapping[str, int] = field(default_factory=dict)  # of ``models``, by field name
    dag: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # as written

    def predecessors(self) -> dict[str, list[str]]:
        """For each node the names of those whose answers it gets, in the order of the specification."""
        found: dict[str, list[str]] = {name: [] for name in self.nodes}
        for name, following in self.successors.items():
            for other in following:
                found[other].append(name)
        return found


def parse_graph(workflow: str, spec: Mapping[str, Any]) -> Graph:
    """Read a specification. Raises :class:`InvalidWorkflow` for anything that cannot be run."""
    models, dag = spec.get("models"), spec.get("dag")
    if not isinstance(models, Mapping) or not isinstance(dag, Mapping) or not dag:
        raise InvalidWorkflow(f"Workflow {workflow}: the specification needs the mappings 'models' and 'dag'")
    defaults = {name: default for name, default, _ in _NUMBERS.values()}
    defaults.update(_numbers(workflow, "models", models))
    edges = {str(name): _targets(workflow, name, following) for name, following in dag.items()}
    names = list(dict.fromkeys([*edges, *(other for following in edges.values() for other in following)]))
    nodes = {name: _node(workflow, name, models.get(name), defaults) for name in names}
    for name, value in models.items():
        if name not in _NUMBERS and name not in nodes:
            raise InvalidWorkflow(f"Workflow {workflow}: model {name!r} is not in the dag ({type(value).__name__})")
    graph = Graph(nodes, {name: edges.get(name, ()) for name in names}, defaults, edges)
    _check_order(workflow, graph)
    return graph


def _numbers(workflow: str, where: str, values: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for key, (name, _, low) in _NUMBERS.items():
        if key not in values:
            continue
        value = values[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise InvalidWorkflow(f"Workflow {workflow}: {where}: {key} must be an integer of {low} or more: {value!r}")
        found[name] = value
    return found


def _targets(workflow: str, name: Any, following: Any) -> tuple[str, ...]:
    if not isinstance(following, list) or not all(item is None or isinstance(item, str) for item in following):
        raise InvalidWorkflow(f"Workflow {workflow}: dag: {name} must be followed by a list of node names")
    return tuple(dict.fromkeys(item for item in following if item and item.strip()))


def _node(workflow: str, name: str, given: Any, defaults: Mapping[str, int]) -> Node:
    model = f"{workflow}__{name}"
    if given is None:  # a function of the handler file
        return Node(name, model, "", 1, 1, 1, 0, defaults["retry_attempts"], defaults["timeout_ms"])
    if not isinstance(given, Mapping) or not isinstance(given.get("url"), str):
        raise InvalidWorkflow(f"Workflow {workflow}: model {name} must be a mapping with a url")
    return Node(name, model, given["url"], **{**defaults, **_numbers(workflow, name, given)})


def _check_order(workflow: str, graph: Graph) -> None:
    """One start, and an order in which every node comes behind those that it waits for."""
    waits = {name: len(before) for name, before in graph.predecessors().items()}
    ready = [name for name, count in waits.items() if not count]
    if len(ready) != 1:
        raise InvalidDag(f"Workflow {workflow}: DAG should have only one start node, found {ready or 'none'}")
    done = 0
    while ready:
        done += 1
        for other in graph.successors[ready.pop()]:
            waits[other] -= 1
            if not waits[other]:
                ready.append(other)
    if done != len(graph.nodes):
        raise InvalidDag(f"Workflow {workflow}: Not a valid DAG: its nodes wait for each other in a circle")
