"""``ts.metrics.metric_abstract``: TorchServe's base class of a metric is here the metric itself."""

from mlserve.compat.ts.metrics.unit import Units
from mlserve.worker.caching_metric import CachingMetric as MetricAbstract

MetricUnit = Units()

__all__ = ["MetricAbstract", "MetricUnit"]
