"""``ts.protocol``, a package of TorchServe's names."""
