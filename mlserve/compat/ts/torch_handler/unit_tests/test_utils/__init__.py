"""``ts.torch_handler.unit_tests.test_utils``, a package of TorchServe's names."""
