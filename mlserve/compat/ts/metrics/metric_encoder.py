"""``ts.metrics.metric_encoder``."""

from json import JSONEncoder
from typing import Any

from mlserve.compat.ts.metrics.metric import Metric
from mlserve.worker.metric_types import Dimension


class MetricEncoder(JSONEncoder):
    """Writes metrics and dimensions as objects."""

    def default(self, obj: Any) -> Any:
        """See ``JSONEncoder``."""
        return obj.to_dict() if isinstance(obj, (Metric, Dimension)) else super().default(obj)
