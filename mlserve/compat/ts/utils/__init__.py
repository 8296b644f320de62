"""``ts.utils``, a package of TorchServe's names."""
