"""Answers each row with its own body: what is measured is how a server moves bytes. Runs unchanged on every server."""


class Handler:
    """The class form of a handler, and ``load`` and ``run`` for servers that call plain code."""

    def load(self, folder):
        """Nothing to load."""

    def run(self, bodies):
        """The bodies, not copied."""
        return bodies

    def initialize(self, context):
        """As archives are loaded."""
        self.load(context.system_properties["model_dir"])

    def handle(self, data, context):
        """As archives are asked."""
        return self.run([row.get("data") or row.get("body") for row in data])
