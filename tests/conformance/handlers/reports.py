"""Uses ``context.metrics`` as TorchServe's handlers do, prints, and does what a request says."""

import logging
import os
import sys
import time

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes


class Handler:
    def initialize(self, context):
        metrics = context.metrics
        metrics.add_metric("InitializeCallCount", 1, "count")
        self.requests = metrics.add_metric_to_cache("InferenceRequestCount", "count", [], MetricTypes.COUNTER)
        print("printed while loading")
        logging.getLogger("library").warning("logged while loading")

    def handle(self, data, context):
        metrics = context.metrics
        if data[0]["body"] == b"die":
            os._exit(9)
        if data[0]["body"] == b"sleep":
            time.sleep(30)
        self.requests.add_or_update(len(data), [])
        metrics.get_metric("RequestBatchSize", MetricTypes.GAUGE).add_or_update(len(data), [context.model_name])
        metrics.add_size("SizeOfImage", 4, 0, "kB")
        metrics.add_time("HandlerMethodTime", 1.5, None, "ms", [Dimension("MethodName", "pre")])
        metrics.add_percent("ExamplePercentMetric", 50, None, [], MetricTypes.HISTOGRAM)
        print("to standard error", file=sys.stderr)
        return [context.get_request_id(index) for index in range(len(data))]
