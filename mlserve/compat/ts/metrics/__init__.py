"""``ts.metrics``: what handlers import to name types, dimensions and metrics. The objects are those of the worker."""
