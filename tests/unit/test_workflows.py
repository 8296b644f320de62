"""Workflows over a service that is played: what each node gets, what failures do, and that nothing stays behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mlserve.core.job import Job
from mlserve.core.messages import InferenceRequest, InferenceResponse, Part
from mlserve.core.workflows import WorkflowFiles, WorkflowService
from mlserve.errors import (
    ErrorKind,
    ModelExists,
    NodeFailed,
    ServeError,
    WorkerStartError,
    WorkflowFailed,
    WorkflowNotFound,
)
from mlserve.protocols.workflows import encode

SPEC = {
    "models": {"cat": {"url": "cat.mar", "retry-attempts": 2}, "dog": {"url": "dog.mar"}},
    "dag": {"pre": ["cat", "dog"], "cat": ["post"], "dog": ["post"]},
}


class Played:
    """Service and source in one: answers each node by a function of its parts."""

    def __init__(self, spec: Any = SPEC) -> None:
        self.spec = spec
        self.models: set[str] = set()
        self.asked: list[tuple[str, dict[str, bytes]]] = []
        self.fail: dict[str, list[ServeError]] = {}
        self.broken: dict[str, ServeError] = {}
        self.released = self.forgotten = 0
        self.answer: Callable[[str, dict[str, bytes]], bytes] = lambda name, parts: name.encode()
        self.workflows = WorkflowService(cast(Any, self), self)

    async def resolve(self, url: str, workflow_name: str = "", *, s3_sse_kms: bool = False) -> WorkflowFiles:
        return WorkflowFiles(workflow_name or "w", url, "/x", self.spec, "h.py")

    def function_spec(self, files: WorkflowFiles, model: str, function: str) -> Any:
        return SimpleNamespace(name=model)

    def release(self, files: WorkflowFiles) -> None:
        self.released += 1

    def forget(self, files: WorkflowFiles) -> None:
        self.forgotten += 1

    async def register(self, url: str, overrides: dict[str, Any], *, initial_workers: int) -> None:
        self._add(overrides["model_name"])

    async def register_spec(self, spec: Any) -> None:
        self._add(spec.name)

    def _add(self, name: str) -> None:
        if name in self.broken:
            raise self.broken[name]
        self.models.add(name)

    async def unregister(self, name: str) -> None:
        self.models.remove(name)

    def find(self, name: str) -> str:
        return name

    async def events(self, name: str, request: InferenceRequest) -> AsyncIterator[Job]:
        node = name.partition("__")[2]
        parts = {part.name: bytes(part.data) for part in request.parts}
        self.asked.append((node, parts))
        await asyncio.sleep(0)
        errors = self.fail.get(node, [])
        result: Any = errors.pop(0) if errors else InferenceResponse(self.answer(node, parts))
        job = Job()
        job.result = result
        yield job


def request() -> InferenceRequest:
    return InferenceRequest("r", [Part("data", b"photo", "image/jpeg")])


def test_answers_reach_the_next_node_under_the_right_names() -> None:
    async def scenario() -> None:
        rig = Played()
        workflow = await rig.workflows.register("w.war")
        assert rig.models == {"w__pre", "w__cat", "w__dog", "w__post"}
        leaves = await rig.workflows.predict(workflow, request())
        assert [(name, bytes(answer.body)) for name, answer in leaves] == [("post", b"post")]
        asked = dict(rig.asked)
        assert asked["pre"] == {"data": b"photo"}, "the first node gets what the client sent"
        assert asked["cat"] == {"body": b"pre"} == asked["dog"], "one predecessor: as body"
        assert asked["post"] == {"cat": b"cat", "dog": b"dog"}, "several: by their names"

    asyncio.run(scenario())


def test_several_last_nodes_answer_as_one_object() -> None:
    async def scenario() -> None:
        rig = Played({"models": {}, "dag": {"a": ["b", "c"]}})
        rig.answer = lambda name, parts: b'{"x": 1}' if name == "b" else b"plain"
        leaves = await rig.workflows.predict(await rig.workflows.register("w.war"), request())
        assert json.loads(bytes(encode(leaves).body)) == {"b": {"x": 1}, "c": "plain"}

    asyncio.run(scenario())


def test_a_node_is_tried_again_as_often_as_it_says_and_no_more() -> None:
    async def scenario() -> None:
        rig = Played()
        workflow = await rig.workflows.register("w.war")
        late = ServeError("late", kind=ErrorKind.TIMEOUT)
        rig.fail = {"cat": [late, late]}
        assert await rig.workflows.predict(workflow, request())
        assert [name for name, _ in rig.asked].count("cat") == 3
        rig.fail = {"dog": [late, late]}
        with pytest.raises(NodeFailed, match="Error executing dog"):
            await rig.workflows.predict(workflow, request())

    asyncio.run(scenario())


def test_a_workflow_that_cannot_start_leaves_no_model_behind() -> None:
    async def scenario() -> None:
        rig = Played()
        rig.broken = {"w__dog": WorkerStartError("Failed to start workers for model w__dog version: 1.0")}
        with pytest.raises(
            WorkflowFailed, match=r"Failures: \[Failed to start workers for model w__dog version: 1.0\]"
        ):
            await rig.workflows.register("w.war")
        assert not rig.models
        assert rig.released == rig.forgotten == 1
        rig.broken = {}
        await rig.workflows.register("w.war")
        with pytest.raises(ModelExists, match="Workflow w is already registered"):
            await rig.workflows.register("w.war")
        assert rig.models, "the refused second registration must not take the first one's models"
        await rig.workflows.unregister("w")
        assert not rig.models
        with pytest.raises(WorkflowNotFound, match="Workflow not found: w"):
            await rig.workflows.unregister("w")

    asyncio.run(scenario())
