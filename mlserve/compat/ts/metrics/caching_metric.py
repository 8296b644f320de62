"""``ts.metrics.caching_metric``."""

from mlserve.worker.caching_metric import CachingMetric

__all__ = ["CachingMetric"]
