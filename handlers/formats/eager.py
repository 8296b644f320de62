"""Eager torch: the ``nn.Module`` of a Python file, with weights from a state_dict or a safetensors file."""

from __future__ import annotations

import inspect

import torch

from ..loading import compile_model, load_eager
from ..signature import Signature, Tensor
from . import Source
from .torchmodel import TorchModel, prepared


def open_model(source: Source) -> TorchModel:
    """See :func:`mlserve.handlers.formats.open_model`. Raises ``ValueError`` where no file defines the module."""
    if source.code is None:
        raise ValueError(
            f"{source.path.name} holds weights only: archive it with --model-file FILE.py, or put model.py with its "
            "nn.Module beside it"
        )
    name = str(source.options.get("model_class") or "")
    module = prepared(load_eager(source.code, source.path, name), source)
    inputs = tuple(Tensor(name) for name in positional(module))
    kind = "eager"
    if "pt2" in source.config:
        module, kind = compile_model(module, source.config["pt2"]), "compiled"
    return TorchModel(kind, module, Signature(inputs, ()), source)


def positional(module: torch.nn.Module) -> list[str]:
    """The names of the arguments that ``forward`` must be given."""
    parameters = inspect.signature(module.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in plain and one.default is inspect.Parameter.empty]
