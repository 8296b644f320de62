"""A torch model to another format, and the proof that it answers the same.

The batch dimension stays dynamic. The new file is loaded by the runtime that will serve it, and compared with the
original on the sample and on random inputs, in several batch sizes; both are timed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mlserve.handler import PredictionError

from . import items
from .auto import complete
from .batches import Arrays
from .formats import Runtime, Source, format_of, open_model, source_of
from .formats.torchmodel import TorchModel, named_outputs
from .signature import Tensor

SIZES = (1, 2, 5)  # batches that are compared; 5 is not a multiple of anything the file was exported with
RUNS = 7


class Comparison(NamedTuple):
    """Errors over all outputs, inputs and batch sizes; seconds are medians for one batch of ``SIZES[-1]``.

    ``inputs`` are the original's, as ``inputs:`` of model-config.yaml has them: not every format says its own.
    """

    max_abs: float
    max_rel: float
    seconds_before: float
    seconds_after: float
    runtime: str
    inputs: dict[str, Any]


def load(path: Path, code: Path | None, config: Mapping[str, Any], threads: int) -> TorchModel:
    """The model to export. Raises ``ValueError`` for one that is not torch's."""
    plain = {key: value for key, value in config.items() if key != "pt2"}  # what is exported is not compiled first
    if isinstance(plain.get("torch"), Mapping):
        plain["torch"] = {key: value for key, value in plain["torch"].items() if key != "cuda_graphs"}
    name, source = source_of(path, plain, threads=threads, code=code)
    model = open_model(name, source)
    if not isinstance(model, TorchModel) or name == "aotinductor" or not isinstance(model.call, torch.nn.Module):
        raise ValueError(f"{path.name} is run by {model.name}: only torch modules and programs can be exported")
    model.signature = complete(model.signature, config)
    return model


def example(model: TorchModel, body: bytes) -> Arrays:
    """The sample as a batch of one. Raises ``ValueError`` if it does not fit the model."""
    try:
        return items.decode({"body": body}, model.signature).arrays
    except PredictionError as error:
        raise ValueError(f"The sample does not fit: {error.message}") from None


def export(model: TorchModel, sample: Arrays, target: str, path: Path) -> None:
    """Write ``path``. Raises ``ValueError`` where the model cannot be brought to that format."""
    writers: Mapping[str, Callable[[TorchModel, Arrays, Path], None]] = {
        "onnx": _to_onnx,
        "pt2": _to_pt2,
        "torchscript": _to_torchscript,
        "openvino": _to_openvino,
        "tensorrt": _to_tensorrt,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing and of ways that torch will drop; the comparison is the judge
        writers[target](model, sample, path)


def _arguments(model: TorchModel, sample: Arrays) -> tuple[torch.Tensor, ...]:
    """Two rows of the sample: a batch of one would be taken for a fixed length."""
    doubled = _repeated(sample, model.signature.inputs, 2)
    return tuple(model.tensor(doubled[one.name], one.dtype) for one in model.signature.inputs)


def _module(model: TorchModel) -> torch.nn.Module:
    assert isinstance(model.call, torch.nn.Module)  # load() takes nothing else
    return model.call


def _repeated(arrays: Arrays, inputs: tuple[Tensor, ...], rows: int) -> Arrays:
    return {
        one.name: arrays[one.name] if one.axis is None else np.repeat(arrays[one.name], rows, axis=one.axis)
        for one in inputs
    }


def _output_names(model: TorchModel, arguments: tuple[torch.Tensor, ...]) -> list[str]:
    with torch.inference_mode():
        return list(named_outputs(model.call(*arguments), model.signature.outputs))


def _to_onnx(model: TorchModel, sample: Arrays, path: Path) -> None:
    arguments = _arguments(model, sample)
    outputs = _output_names(model, arguments)
    known: dict[str, int | None] = {one.name: one.axis for one in (*model.signature.inputs, *model.signature.outputs)}
    known = {**dict.fromkeys(outputs, 0), **known}
    axes = {name: {axis: "batch"} for name, axis in known.items() if axis is not None}
    torch.onnx.export(
        _module(model),
        arguments,
        str(path),
        input_names=[one.name for one in model.signature.inputs],
        output_names=outputs,
        dynamic_axes=axes,
        training=torch.onnx.TrainingMode.PRESERVE,  # the module is in eval mode, and a program cannot be set to it
        dynamo=False,  # the newer exporter does not take TorchScript, and wants onnxscript
    )


def _to_pt2(model: TorchModel, sample: Arrays, path: Path) -> None:
    if isinstance(model.call, torch.jit.ScriptModule):
        raise ValueError("TorchScript cannot become a .pt2 file: export the module that it was made from")
    rows = torch.export.Dim("batch", min=1, max=1 << 16)
    shapes = tuple({} if one.axis is None else {one.axis: rows} for one in model.signature.inputs)
    program = torch.export.export(_module(model), _arguments(model, sample), dynamic_shapes=shapes)
    torch.export.save(program, str(path))


def _to_torchscript(model: TorchModel, sample: Arrays, path: Path) -> None:
    module: Any = model.call
    if not isinstance(module, torch.jit.ScriptModule):
        trace: Any = torch.jit.trace
        module = trace(module, _arguments(model, sample))
    module.save(str(path))


def _to_openvino(model: TorchModel, sample: Arrays, path: Path) -> None:
    import openvino

    onnx = path.with_suffix(".onnx.part")
    try:
        _to_onnx(model, sample, onnx)
        openvino.save_model(openvino.convert_model(str(onnx)), str(path), compress_to_fp16=False)
    finally:
        onnx.unlink(missing_ok=True)


def _to_tensorrt(model: TorchModel, sample: Arrays, path: Path) -> None:
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    onnx = path.with_suffix(".onnx.part")
    try:
        _to_onnx(model, sample, onnx)
        if not parser.parse_from_file(str(onnx)):
            raise ValueError(f"TensorRT cannot read the model: {parser.get_error(0)}")
    finally:
        onnx.unlink(missing_ok=True)
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for one in model.signature.inputs:
        profile.set_shape(one.name, *(_repeated(sample, (one,), rows)[one.name].shape for rows in (1, 8, 32)))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError("TensorRT built no engine: its log above says why")
    path.write_bytes(plan)


def compare(model: TorchModel, target: Path, sample: Arrays, threads: int) -> Comparison:
    """Run both on the sample and on random inputs. Raises ``ValueError`` where the shapes of the outputs differ."""
    other = open_model(format_of(target), Source(target, threads=threads))
    inputs, wanted = len(other.signature.inputs), len(model.signature.inputs)
    if inputs != wanted:
        raise ValueError(f"The new file has {inputs} inputs, the original {wanted}")
    pairs = zip(other.signature.inputs, model.signature.inputs, strict=True)
    told = tuple(new._replace(dtype=new.dtype or one.dtype) for new, one in pairs)  # not every format says it
    other.signature = other.signature._replace(inputs=told)
    worst_abs = worst_rel = 0.0
    random = np.random.default_rng(0)
    batch = sample
    for rows in SIZES:
        for given in (sample, _random_like(sample, random)):
            batch = _repeated(given, model.signature.inputs, rows)
            before, after = list(model.infer(batch).values()), list(other.infer(_named(batch, other)).values())
            if [one.shape for one in before] != [one.shape for one in after]:
                raise ValueError(
                    f"A batch of {rows} gives outputs of {[one.shape for one in after]}, the original "
                    f"{[one.shape for one in before]}"
                )
            for left, right in zip(before, after, strict=True):
                absolute, relative = _errors(left, right)
                worst_abs, worst_rel = max(worst_abs, absolute), max(worst_rel, relative)
    timed = (_seconds(lambda: model.infer(batch)), _seconds(lambda: other.infer(_named(batch, other))))
    return Comparison(worst_abs, worst_rel, *timed, other.name, _declared(sample, model, other))


def _declared(sample: Arrays, model: TorchModel, other: Runtime) -> dict[str, Any]:
    """dtype and shape of each input under the new file's names; the sample's dtype where nothing else says it."""
    found: dict[str, Any] = {}
    for one, new in zip(model.signature.inputs, other.signature.inputs, strict=True):
        dtype = one.dtype or str(sample[one.name].dtype)
        found[new.name] = {"dtype": dtype, "batch_axis": one.axis}
        if one.shape is not None:
            known = enumerate(one.shape)
            found[new.name]["shape"] = [dim if isinstance(dim, int) and at != one.axis else -1 for at, dim in known]
    return found


def _errors(left: Any, right: Any) -> tuple[float, float]:
    """The largest absolute error, and the largest relative to a value that is not next to zero. NaN is infinite."""
    if not left.size:
        return 0.0, 0.0
    wide: Any = left.astype(np.float64)
    distance: Any = np.abs(wide - right.astype(np.float64))
    distance = np.where(np.isnan(distance), np.where(np.isnan(wide) & np.isnan(right), 0.0, np.inf), distance)
    return float(distance.max()), float((distance / np.maximum(np.abs(np.nan_to_num(wide)), 1e-3)).max())


def _named(batch: Arrays, other: Runtime) -> Arrays:
    """The same arrays under the other file's names, in order."""
    return {one.name: array for one, array in zip(other.signature.inputs, batch.values(), strict=True)}


def _random_like(sample: Arrays, random: np.random.Generator) -> Arrays:
    """Arrays of the sample's shapes: normal where it has floats, within its own range where it has integers."""
    made: Arrays = {}
    for name, array in sample.items():
        if array.dtype.kind == "f":
            made[name] = np.asarray(random.standard_normal(array.shape)).astype(array.dtype)
        elif array.dtype.kind in "iu" and array.size:
            made[name] = random.integers(array.min(), array.max() + 1, array.shape).astype(array.dtype)
        else:
            made[name] = array
    return made


def _seconds(call: Callable[[], object]) -> float:
    """The median of a few calls."""
    found = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return float(np.median(found))
