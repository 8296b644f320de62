"""Two handler classes and nothing that says which."""


class First:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return ["first"] * len(data)


class Second:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return ["second"] * len(data)
