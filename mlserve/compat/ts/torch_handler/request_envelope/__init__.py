"""``ts.torch_handler.request_envelope``, a package of TorchServe's names."""
