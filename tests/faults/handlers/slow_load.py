"""Loading takes ``load_seconds`` of the model's configuration, 1 by default."""

import time


class SlowHandler:
    def initialize(self, context):
        time.sleep(float(context.model_yaml_config.get("load_seconds", 1.0)))

    def handle(self, data, context):
        return [row["body"] for row in data]
