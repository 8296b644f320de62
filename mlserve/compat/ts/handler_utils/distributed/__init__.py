"""``ts.handler_utils.distributed``, a package of TorchServe's names."""
