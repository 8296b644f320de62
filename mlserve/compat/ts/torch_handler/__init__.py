"""``ts.torch_handler``, a package of TorchServe's names."""
