"""``ts.version``: the TorchServe that handlers and scripts may take this for."""

__version__ = "0.12.0"
