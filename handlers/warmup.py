"""Calls that a model gets before its first request, so that no request pays for compiling, allocating or autotuning.

``warmup:`` in model-config.yaml: ``true`` makes inputs from the signature; a mapping chooses:

* ``sizes``: batch sizes, by default 1, 2 and ``batchSize``, or those that the runtime prepares for;
* ``samples``: files in the model's directory, each the body of a request (``.npy``, ``.npz``, JSON);
* ``shapes``: ``{input: [dims of one item]}`` for dimensions that vary, 1 where nothing is said.

A worker is ready only after it. A warm-up that fails fails the load: the first request would have failed as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mlserve.handler import PredictionError

from . import batches, items
from .signature import Signature, Tensor, numpy_name

logger = logging.getLogger(__name__)


def warm_up(
    infer: Callable[[batches.Arrays], batches.Arrays],
    signature: Signature,
    section: Any,
    *,
    directory: Path,
    batch_size: int,
    sizes: Sequence[int] | None = None,
) -> float:
    """Run every size on every sample; returns seconds. Raises ``ValueError`` for a section that cannot be right.

    ``sizes`` are those for a section that names none.
    """
    options = section if isinstance(section, Mapping) else {}
    if not section or options.get("enable") is False:
        return 0.0
    unknown = [key for key in options if key not in ("enable", "sizes", "samples", "shapes")]
    if unknown:
        raise ValueError(f"warmup in model-config.yaml: unknown {', '.join(unknown)}; known are sizes, samples, shapes")
    begun = perf_counter()
    given = samples(options.get("samples"), signature, directory) or [generated(signature, options.get("shapes"))]
    for size in chosen_sizes(options.get("sizes"), batch_size, sizes):
        for sample in given:
            batches.run(infer, signature, [sample] * size)
    seconds = perf_counter() - begun
    logger.info("warmed up in %.2f s", seconds)
    return seconds


def chosen_sizes(given: Any, batch_size: int, usual: Sequence[int] | None = None) -> list[int]:
    """The batch sizes to run, each once."""
    if given is None:
        given = usual or [1, 2, batch_size]
    if not isinstance(given, Sequence) or not all(isinstance(one, int) and one > 0 for one in given):
        raise ValueError(f"warmup: sizes in model-config.yaml must be a list of batch sizes, got {given!r}")
    return sorted({min(one, batch_size) for one in given})


def samples(given: Any, signature: Signature, directory: Path) -> list[items.Item]:
    """The items of the sample files. Raises ``ValueError`` that names a file which is missing or does not fit."""
    found = []
    for name in [given] if isinstance(given, str) else given or []:
        path = (directory / str(name)).resolve()
        if not path.is_relative_to(directory.resolve()) or not path.is_file():
            raise ValueError(f"warmup: samples in model-config.yaml: there is no file {name} in the model's directory")
        try:
            found.append(items.decode({"body": path.read_bytes()}, signature))
        except PredictionError as error:
            raise ValueError(f"warmup: sample {name} does not fit: {error.message}") from None
    return found


def generated(signature: Signature, shapes: Any) -> items.Item:
    """An item of zeros, empty text for text. Raises ``ValueError`` where the shape of an input is not known at all."""
    shapes = shapes if isinstance(shapes, Mapping) else {}
    arrays = {}
    for tensor in signature.inputs:
        shape = item_shape(tensor, shapes.get(tensor.name))
        if tensor.dtype == "str":
            array: np.ndarray[Any, Any] = np.full(shape, "", object)
        else:
            array = np.zeros(shape, numpy_name(tensor.dtype) or "float32")
        arrays[tensor.name] = array if tensor.axis is None else np.expand_dims(array, tensor.axis)
    return items.Item(arrays, 1)


def item_shape(tensor: Tensor, given: Any) -> tuple[int, ...]:
    """One item's lengths: as given, else as the runtime knows, else as the file says, 1 for what varies."""
    if given is not None:
        if not isinstance(given, list) or not all(isinstance(one, int) for one in given) or not tensor.fits(given):
            raise ValueError(f"warmup: shapes: {tensor.name}: {given!r} does not fit {tensor.text()}")
        return tuple(given)
    if tensor.example is not None and tensor.fits(tensor.example):
        return tensor.example
    if tensor.item_shape is None:
        raise ValueError(
            f"warmup cannot make input {tensor.name!r}: the file does not say its shape. Give "
            f"warmup: {{shapes: {{{tensor.name}: [...]}}}} or inputs: in model-config.yaml"
        )
    return tuple(dim if isinstance(dim, int) else 1 for dim in tensor.item_shape)
