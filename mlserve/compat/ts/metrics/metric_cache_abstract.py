"""``ts.metrics.metric_cache_abstract``: the base class of caches is here ``context.metrics``'s own."""

from mlserve.worker.metrics import Metrics as MetricCacheAbstract

__all__ = ["MetricCacheAbstract"]
