"""The workflow API of TorchServe as pure translation: parameters -> calls, results -> JSON and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from mlserve.core.messages import InferenceResponse
from mlserve.core.workflows import Workflow
from mlserve.errors import InvalidInput
from mlserve.protocols.errors import json_body
from mlserve.protocols.torchserve import JSON, Answer

REGISTER_PARAMETERS = ("url", "workflow_name", "response_timeout", "startup_timeout", "s3_sse_kms")


def registered_text(name: str) -> str:
    """What a finished registration says."""
    return f"Workflow {name} has been registered and scaled successfully."


def unregistered_text(name: str) -> str:
    """What unregistering says."""
    return f'Workflow "{name}" unregistered'


def list_json(workflows: Sequence[Workflow], limit: int, offset: int) -> dict[str, Any]:
    """A page of workflows; the token is there up to and including an exactly full last page."""
    end = offset + limit
    page: dict[str, Any] = {"nextPageToken": str(end)} if end <= len(workflows) and limit else {}
    page["workflows"] = [
        {"workflowName": workflow.name, "workflowUrl": workflow.files.url} for workflow in workflows[offset:end]
    ]
    return page


def describe_json(workflow: Workflow) -> list[dict[str, Any]]:
    """The describe answer: a list with one element."""
    defaults = workflow.graph.defaults
    return [
        {
            "workflowName": workflow.name,
            "workflowUrl": workflow.files.url,
            "minWorkers": defaults["min_workers"],
            "maxWorkers": defaults["max_workers"],
            "batchSize": defaults["batch_size"],
            "maxBatchDelay": defaults["max_batch_delay_ms"],
            "workflowDag": dag_text(workflow.graph.dag),
        }
    ]


def dag_text(dag: Mapping[str, Sequence[str]]) -> str:
    """The graph as Java prints a map of lists: ``{a=[b], b=[c]}``."""
    return "{" + ", ".join(f"{name}=[{', '.join(following)}]" for name, following in dag.items()) + "}"


def timeouts(parameters: Mapping[str, Any]) -> dict[str, float]:
    """Overrides of a register call for the models of a workflow. Raises :class:`InvalidInput`."""
    found: dict[str, float] = {}
    for name in ("response_timeout", "startup_timeout"):
        if name in parameters:
            try:
                found[name] = float(parameters[name])
            except (TypeError, ValueError):
                continue  # as TorchServe: what is no number counts as not given
            if not 0 < found[name] < 1e9:
                raise InvalidInput(f"{name} must be greater than 0 seconds, got {found[name]:g}")
    return found


def encode(leaves: Sequence[tuple[str, InferenceResponse]]) -> Answer:
    """The answer to a prediction: that of the one last node, or a JSON object with the answer of each."""
    if len(leaves) == 1:
        response = leaves[0][1]
        return Answer(200, response.body, response.content_type or JSON)
    return Answer(200, json_body({name: _value(response.body) for name, response in leaves}), JSON)


def _value(body: bytes | memoryview) -> Any:
    """JSON as it is, anything else as text."""
    try:
        return orjson.loads(body)
    except ValueError:
        return bytes(body).decode("utf-8", "replace")
