from ts.context import Context


class Broken:
    def initialize(self, context: Context):
        self.first()

    def handle(self, data, context: Context):
        return None

    def first(self):
        self.second()

    def second(self):
        assert False  # noqa: B011, PT015
