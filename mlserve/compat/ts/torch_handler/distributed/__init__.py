"""``ts.torch_handler.distributed``, a package of TorchServe's names."""
