"""``ts.metrics.metric_type_enum``."""

from mlserve.worker.metric_types import MetricTypes

__all__ = ["MetricTypes"]
