"""``ts.torch_handler.unit_tests``, a package of TorchServe's names."""
