"""TorchScript files.

They know the names of their inputs, but neither dtypes nor shapes: ``inputs:`` in model-config.yaml declares those.
"""

from __future__ import annotations

from typing import Any

from ..loading import load_torchscript
from ..runtimes import worker_device
from ..signature import Signature, Tensor
from . import Source
from .torchmodel import TorchModel, prepared
from .torchoptions import options_of


def open_model(source: Source) -> TorchModel:
    """See :func:`mlserve.handlers.formats.open_model`."""
    options = options_of(source, "TorchScript")
    module = prepared(load_torchscript(source.path, worker_device(source.gpu)), source, options)
    forward: Any = module.forward
    names = [argument.name for argument in forward.schema.arguments[1:] if not argument.has_default_value()]
    return TorchModel("TorchScript", module, Signature(tuple(Tensor(name) for name in names), ()), source, options)
