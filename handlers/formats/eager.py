"""Eager torch: the ``nn.Module`` of a Python file, with weights from a state_dict or a safetensors file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch

from ..loading import load_eager
from ..signature import Signature, Tensor
from . import Source
from .torchmodel import TorchModel, prepared
from .torchoptions import compiled, options_of


def open_model(source: Source) -> TorchModel:
    """See :func:`mlserve.handlers.formats.open_model`. Raises ``ValueError`` where no file defines the module."""
    if source.code is None:
        raise ValueError(
            f"{source.path.name} holds weights only: archive it with --model-file FILE.py, or put model.py with its "
            "nn.Module beside it"
        )
    options = options_of(source, "weights")
    module = prepared(
        load_eager(
            source.code,
            source.path,
            options.model_class or _named_class(source),
            mapped=source.own_files and source.gpu is None,
        ),
        source,
        options,
    )
    inputs = tuple(Tensor(name) for name in positional(module))
    return TorchModel("eager", compiled(module, options), Signature(inputs, ()), source, options)


def _named_class(source: Source) -> str:
    """``handler: {model_class: NAME}``, as the handler ``base`` has it."""
    section = source.config.get("handler")
    return str(section.get("model_class") or "") if isinstance(section, Mapping) else ""


def positional(module: torch.nn.Module) -> list[str]:
    """The names of the arguments that ``forward`` must be given."""
    parameters = inspect.signature(module.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in plain and one.default is inspect.Parameter.empty]
