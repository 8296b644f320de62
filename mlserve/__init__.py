"""Package models into archives and serve them with dynamic batching over worker processes."""

__version__ = "0.1.0"
