"""Cannot be loaded, some calls deep."""


class Handler:
    def initialize(self, context):
        self.outer()

    def outer(self):
        self.inner()

    def inner(self):
        assert not self

    def handle(self, data, context):
        return ["" for _ in data]
