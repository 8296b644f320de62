"""``torch.export`` programs and packages of AOTInductor, both ``.pt2``.

A program knows its inputs whole. A package knows only their number: declare them in ``inputs:``.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..signature import Dim, Signature, Tensor, with_batch_axis
from . import Source
from .torchmodel import TorchModel, device_of


def open_model(source: Source) -> TorchModel:
    """See :func:`mlserve.handlers.formats.open_model`."""
    if is_compiled(source.path):
        return _compiled(source)
    try:
        program = torch.export.load(str(source.path))
    except Exception as error:  # zip, JSON and schema errors, each of its own kind
        raise ValueError(f"{source.path.name} is not a program of torch.export ({error})") from error
    module: Any = program.module().to(device_of(source))
    return TorchModel("torch.export", module, signature_of(program), source)


def is_compiled(path: Path) -> bool:
    """Whether a ``.pt2`` file is a package of AOTInductor. Raises ``ValueError`` for what is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("aotinductor" in name for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path.name} is not a .pt2 file: {error}") from error


def _compiled(source: Source) -> TorchModel:
    device = device_of(source)
    index = -1 if device.index is None else device.index  # -1 is what a package for the CPU wants
    package = torch._inductor.aoti_load_package(str(source.path), device_index=index)
    loader: Any = package.loader
    count = _leaves(json.loads(loader.get_call_spec()[0])[1])
    names = ["input"] if count == 1 else [f"input_{index}" for index in range(count)]
    return TorchModel("AOTInductor", package, Signature(tuple(map(Tensor, names)), ()), source)


def _leaves(spec: dict[str, Any]) -> int:
    """How many tensors a serialized tree of arguments holds; a leaf is a node without a type."""
    return 1 if spec["type"] is None else sum(_leaves(child) for child in spec["children_spec"])


def signature_of(program: torch.export.ExportedProgram) -> Signature:
    """Names, dtypes and shapes of a program's user inputs and outputs; its symbols become the names of dimensions."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    outputs = program.graph_signature.user_outputs
    names = ["output"] if len(outputs) == 1 else [f"output_{index}" for index in range(len(outputs))]
    ranges = {str(symbol): (one.lower, one.upper) for symbol, one in program.range_constraints.items()}

    def tensor(name: str, value: Any) -> Tensor:
        if not isinstance(value, torch.Tensor):
            return Tensor(name)
        return Tensor(name, str(value.dtype).removeprefix("torch."), tuple(_dim(size, ranges) for size in value.shape))

    inputs = [tensor(str(name), values[str(name)]) for name in program.graph_signature.user_inputs]
    return with_batch_axis(
        inputs, [tensor(name, values.get(str(node))) for name, node in zip(names, outputs, strict=True)]
    )


def _dim(size: Any, ranges: dict[str, Any]) -> Dim:
    return int(size) if isinstance(size, int) else str(size)
