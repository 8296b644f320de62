"""``ts.metrics.metric_cache_errors``."""

import yaml

from mlserve.worker.metric_types import (
    GeneralMetricsCacheError,
    MetricsCacheIOError,
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
)

__all__ = [
    "GeneralMetricsCacheError",
    "MetricsCacheIOError",
    "MetricsCacheKeyError",
    "MetricsCachePyYamlError",
    "MetricsCacheTypeError",
    "MetricsCacheValueError",
]


class MetricsCachePyYamlError(yaml.YAMLError):
    """The file is no YAML."""

    def __init__(self, message: object) -> None:
        super().__init__(f"Error parsing file: {message}")
