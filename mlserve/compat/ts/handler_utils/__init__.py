"""``ts.handler_utils``, a package of TorchServe's names."""
