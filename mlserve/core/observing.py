"""Somebody who has to hear of each request and batch as it happens, and not only of the sums.

TorchServe's metrics need this: in its ``log`` mode each event is a line. Nothing is called where nobody observes, and
an observer's fault must not become a request's: observers do not raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mlserve.core.job import Batch, Job
    from mlserve.core.messages import BatchReport, InferenceRequest, InferenceResponse
    from mlserve.core.model import ModelSpec
    from mlserve.errors import ServeError


class Observer(Protocol):
    """Called on the event loop. Times are in seconds."""

    def asked(self, spec: ModelSpec, request: InferenceRequest) -> None:
        """A request has reached its model, which may still refuse it."""

    def answered(self, job: Job, queue_seconds: float, total_seconds: float) -> None:
        """A queued request has ended with ``job.result``."""

    def computed(
        self,
        spec: ModelSpec,
        batch: Batch,
        results: Sequence[InferenceResponse | ServeError],
        report: BatchReport,
    ) -> None:
        """A batch came back from its worker; called before its requests are answered."""

    def loaded(self, spec: ModelSpec, worker_id: int, seconds: float, metrics: Sequence[Any]) -> None:
        """A worker has loaded the model, and its handler reported ``metrics`` meanwhile."""

    def load_failed(self, spec: ModelSpec, metrics: Sequence[Any]) -> None:
        """A worker could not load the model, and its handler reported ``metrics`` before it failed."""
