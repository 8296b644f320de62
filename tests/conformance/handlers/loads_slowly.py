"""Takes longer to load than it is given."""

import time


class Handler:
    def initialize(self, context):
        time.sleep(30)

    def handle(self, data, context):
        return ["" for _ in data]
