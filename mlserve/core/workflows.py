"""Workflows: graphs of models and functions that answer one request together, inside the server.

A node is an ordinary model version with workers of its own, registered as ``workflow__node``; the answer of one node is
the request of the next, handed over as bytes without a second trip through HTTP. Nodes run as soon as what they wait
for is there, side by side where the graph allows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mlserve.core.job import Job
from mlserve.core.messages import InferenceRequest, InferenceResponse, Part
from mlserve.core.model import ModelSpec, check_name
from mlserve.core.service import InferenceService
from mlserve.core.workflow_graph import Graph, Node, parse_graph
from mlserve.errors import (
    ModelExists,
    ModelNotFound,
    NodeFailed,
    ServeError,
    VersionNotFound,
    WorkerStartError,
    WorkflowFailed,
    WorkflowNotFound,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkflowFiles:
    """An unpacked workflow: its name by the manifest or the caller, its parsed specification, its directory."""

    name: str
    url: str
    directory: str
    spec: Mapping[str, Any]
    handler: str = ""  # the file with its functions


class WorkflowSource(Protocol):
    """The workflow store, as the core sees it."""

    async def resolve(self, url: str, workflow_name: str = "", *, s3_sse_kms: bool = False) -> WorkflowFiles:
        """Find, check and unpack. Raises ``WorkflowNotFound``, ``DownloadError`` or ``InvalidWorkflow``."""

    def function_spec(self, files: WorkflowFiles, model: str, function: str) -> ModelSpec:
        """What runs ``function`` of the workflow's handler file under the name ``model``."""

    def release(self, files: WorkflowFiles) -> None:
        """Remove what :meth:`resolve` unpacked."""

    def forget(self, files: WorkflowFiles) -> None:
        """Remove the archive itself, if it was fetched from a URL."""


@dataclass(frozen=True)
class Workflow:
    """A registered workflow."""

    files: WorkflowFiles
    graph: Graph

    @property
    def name(self) -> str:
        """What it is called by."""
        return self.files.name


class WorkflowService:
    """Registers, runs and removes workflows. All on the event loop."""

    def __init__(self, service: InferenceService, source: WorkflowSource) -> None:
        self._service = service
        self._source = source
        self._workflows: dict[str, Workflow] = {}
        self._coming: set[str] = set()

    def list_workflows(self) -> list[Workflow]:
        """All of them, by name."""
        return [self._workflows[name] for name in sorted(self._workflows)]

    def find(self, name: str) -> Workflow:
        """Raises :class:`WorkflowNotFound`."""
        if name not in self._workflows:
            raise WorkflowNotFound(f"Workflow not found: {name}")
        return self._workflows[name]

    async def register(
        self, url: str, name: str = "", *, overrides: Mapping[str, Any] | None = None, s3_sse_kms: bool = False
    ) -> Workflow:
        """Load a workflow and start the workers of all its nodes.

        ``overrides`` are of :class:`ModelSpec` and go to every model (the timeouts of a register call). Raises what the
        source raises, ``ModelExists``, or :class:`WorkflowFailed` with what each node has to say; then nothing stays.
        """
        files = await self._source.resolve(url, name, s3_sse_kms=s3_sse_kms)
        try:
            check_name(files.name)
            if files.name in self._workflows or files.name in self._coming:
                raise ModelExists(f"Workflow {files.name} is already registered.")
            workflow = Workflow(files, parse_graph(files.name, files.spec))
        except BaseException:
            self._source.release(files)
            raise
        self._coming.add(files.name)
        try:
            await self._start(workflow, overrides or {})
        except BaseException:
            self._source.release(files)
            self._source.forget(files)
            raise
        finally:
            self._coming.discard(files.name)
        self._workflows[files.name] = workflow
        return workflow

    async def _start(self, workflow: Workflow, overrides: Mapping[str, Any]) -> None:
        nodes = list(workflow.graph.nodes.values())
        results = await asyncio.gather(*(self._load(workflow, node, overrides) for node in nodes))
        failures = [error for error in results if error is not None]
        if failures:
            await self._remove([node for node, error in zip(nodes, results, strict=True) if error is None])
            said = ", ".join(
                error.failed if isinstance(error, WorkerStartError) else error.message for error in failures
            )
            raise WorkflowFailed(
                f"Workflow {workflow.name} has failed to register. Failures: [{said}]",
                detail="\n".join(error.message for error in failures if isinstance(error, WorkerStartError)),
            )

    async def _load(self, workflow: Workflow, node: Node, overrides: Mapping[str, Any]) -> ServeError | None:
        """Register one node; returns why that failed, in a text that names the node, or None."""
        try:
            if node.url:
                given = {
                    **overrides,
                    "model_name": node.model,
                    "batch_size": node.batch_size,
                    "max_batch_delay_ms": node.max_batch_delay_ms,
                    "workflow": workflow.name,
                }
                await self._service.register(node.url, given, initial_workers=node.max_workers)
            else:
                spec = self._source.function_spec(workflow.files, node.model, node.name)
                await self._service.register_spec(spec)
        except ServeError as error:
            log.error("workflow %s: node %s failed to register: %s", workflow.name, node.name, error.message)
            if isinstance(error, WorkerStartError):  # names the node itself
                return error
            return WorkflowFailed(f"Workflow Node {node.model} failed to register. Details: {error.message}")
        return None

    async def unregister(self, name: str) -> None:
        """Take a workflow out of service with all its nodes. Raises :class:`WorkflowNotFound`."""
        workflow = self.find(name)
        del self._workflows[name]
        await self._remove(list(workflow.graph.nodes.values()))
        self._source.release(workflow.files)
        self._source.forget(workflow.files)

    async def _remove(self, nodes: Sequence[Node]) -> None:
        results = await asyncio.gather(
            *(self._service.unregister(node.model) for node in nodes), return_exceptions=True
        )
        for result in results:
            if isinstance(result, ModelNotFound | VersionNotFound):
                continue  # somebody has unregistered it by itself
            if isinstance(result, BaseException):
                raise result

    # -- one request --------------------------------------------------------------------------------------------------

    async def predict(self, workflow: Workflow, request: InferenceRequest) -> list[tuple[str, InferenceResponse]]:
        """Run the graph; (node, answer) of each node that nobody follows, in the order of the specification.

        Raises :class:`NodeFailed` when a node has failed in all its attempts; the others are cancelled then.
        """
        graph = workflow.graph
        before = graph.predecessors()
        answers: dict[str, InferenceResponse] = {}
        running: dict[asyncio.Task[InferenceResponse], str] = {}

        def start(name: str) -> None:
            step = _step(request, before[name], answers)
            running[asyncio.ensure_future(self._invoke(graph.nodes[name], step))] = name

        start(next(name for name, names in before.items() if not names))
        try:
            while running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    name = running.pop(task)
                    answers[name] = task.result()
                    for other in graph.successors[name]:
                        if all(source in answers for source in before[other]):
                            start(other)
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)
        return [(name, answers[name]) for name, following in graph.successors.items() if not following]

    async def _invoke(self, node: Node, request: InferenceRequest) -> InferenceResponse:
        reason = ""
        for attempt in range(node.retry_attempts + 1):
            request.timeout = node.timeout_ms / 1000
            try:
                return await self._once(node, request)
            except (ModelNotFound, VersionNotFound):
                raise
            except ServeError as error:
                reason = error.message
                log.warning("workflow node %s failed in attempt %d: %s", node.model, attempt, reason)
        raise NodeFailed(f"Error executing {node.name}", detail=reason)

    async def _once(self, node: Node, request: InferenceRequest) -> InferenceResponse:
        result: InferenceResponse | ServeError | None = None
        pieces: list[bytes] = []
        async for event in self._service.events(self._service.find(node.model), request):
            if isinstance(event, Job):
                result = event.result
            else:
                pieces.append(event.data)
        if isinstance(result, ServeError):
            raise result
        if result is None or result.status >= 400:
            raise ServeError(f"it answered {result.status if result else 'nothing'}")
        if pieces:  # a node that streams hands over the whole of it
            result.body = b"".join((*pieces, bytes(result.body)))
        return result


def _step(
    request: InferenceRequest, sources: Sequence[str], answers: Mapping[str, InferenceResponse]
) -> InferenceRequest:
    """The request of a node: the client's own for the first, one source as ``body``, several by their names."""
    if not sources:
        parts: Sequence[Part] = request.parts
    elif len(sources) == 1:
        parts = [Part("body", answers[sources[0]].body)]
    else:
        parts = [Part(name, answers[name].body) for name in sources]
    return InferenceRequest(request.request_id, parts, request.headers, url_path=None)
