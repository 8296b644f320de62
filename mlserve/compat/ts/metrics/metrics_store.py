"""``ts.metrics.metrics_store``: what ``context.metrics`` was before TorchServe 0.6, and old tests still make."""

from __future__ import annotations

from typing import Any

from mlserve.worker.metrics import Metrics


class MetricsStore(Metrics):
    """``context.metrics`` for the requests and the model that are given."""

    def __init__(self, request_ids: Any, model_name: str | None) -> None:
        super().__init__(model_name=model_name)
        self.set_request_ids(request_ids)

    def _sink(self) -> None:
        """See ``Metrics``: whoever is current."""
