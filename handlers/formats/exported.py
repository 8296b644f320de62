"""``torch.export`` programs and packages of AOTInductor, both ``.pt2``.

A program knows its inputs whole. A package knows only their number: it is refused without ``inputs:``.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from ..runtimes import check_threads, is_package, load_package, worker_device
from ..signature import Signature, Tensor, numpy_name, with_batch_axis
from . import Source
from .torchmodel import TorchModel
from .torchoptions import compiled, options_of


def open_model(source: Source) -> TorchModel:
    """See :func:`mlserve.handlers.formats.open_model`."""
    if is_package(source.path):
        return _compiled(source)
    try:
        program = torch.export.load(str(source.path))
    except Exception as error:  # zip, JSON and schema errors, each of its own kind
        raise ValueError(f"{source.path.name} is not a program of torch.export ({error})") from error
    options = options_of(source, "torch.export")
    module: Any = program.module().to(worker_device(source.gpu))
    if options.channels_last:
        module = module.to(memory_format=torch.channels_last)
    return TorchModel("torch.export", compiled(module, options), signature_of(program), source, options)


def _compiled(source: Source) -> TorchModel:
    options = options_of(source, "AOTInductor")
    check_threads(source.path, source.handler_threads)
    package = load_package(source.path, worker_device(source.gpu))
    loader: Any = package.loader
    count = _leaves(json.loads(loader.get_call_spec()[0])[1])
    names = ["input"] if count == 1 else [f"input_{index}" for index in range(count)]
    model = TorchModel("AOTInductor", package, Signature(tuple(map(Tensor, names)), ()), source, options)
    model.unchecked = (
        True  # AOTI_RUNTIME_CHECK_INPUTS would, and refuse batches of one: it takes "dynamic" for 2 or more
    )
    return model


def _leaves(spec: dict[str, Any]) -> int:
    """How many tensors a serialized tree of arguments holds; a leaf is a node without a type."""
    return 1 if spec["type"] is None else sum(_leaves(child) for child in spec["children_spec"])


def signature_of(program: torch.export.ExportedProgram) -> Signature:
    """Names, dtypes and shapes of a program's user inputs and outputs; its symbols become the names of dimensions."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    outputs = program.graph_signature.user_outputs
    names = ["output"] if len(outputs) == 1 else [f"output_{index}" for index in range(len(outputs))]

    def tensor(name: str, value: Any) -> Tensor:
        if not isinstance(value, torch.Tensor):
            return Tensor(name)
        shape = tuple(int(size) if isinstance(size, int) else str(size) for size in value.shape)
        return Tensor(name, str(value.dtype).removeprefix("torch."), shape)

    inputs = [tensor(str(name), values[str(name)]) for name in program.graph_signature.user_inputs]
    answers = [tensor(name, values.get(str(node))) for name, node in zip(names, outputs, strict=True)]
    # Answers are NumPy's arrays; what an input is cast to is its own.
    return with_batch_axis(inputs, [one._replace(dtype=numpy_name(one.dtype)) for one in answers])
