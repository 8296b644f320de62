"""``ts.metrics.dimension``."""

from mlserve.worker.metric_types import Dimension

__all__ = ["Dimension"]
