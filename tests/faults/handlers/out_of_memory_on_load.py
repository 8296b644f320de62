"""Runs out of memory while loading."""


class Greedy:
    def initialize(self, context):
        self.weights = bytearray(1 << 60)

    def handle(self, data, context):
        return ["never"] * len(data)
