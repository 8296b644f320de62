"""``auto``: serves any model file that a runtime here knows, without a line of code.

One request is one item without the batch dimension (see :mod:`mlserve.handlers.items`); the server batches items on
the dimension that the file names. Keys of model-config.yaml: ``runtime`` (chosen by the file where it is missing), a
section called like the runtime for its options, ``inputs`` and ``outputs`` for files that don't describe theirs.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mlserve.handler import Context, PredictionError

from . import batches, items
from .copies import copied
from .formats import Runtime, open_model, source_of
from .misfits import Misfits
from .rows import read_rows
from .runtimes import worker_threads
from .signature import BFLOAT16, OPEN_INFERENCE, Signature, Tensor, declared
from .warmup import warm_up

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class ModelHandler:
    """The handler class."""

    runtime: Runtime
    signature: Signature
    misfits: Misfits | None = None  # what it has answered; set when it is loaded
    model_signature: Mapping[str, Any]  # shown by ``describe``

    @property
    def accepts_views(self) -> bool:
        """Whether bodies need not be copied for this handler: not for one with a way of its own to read them."""
        return type(self).decode is ModelHandler.decode and type(self).handle is ModelHandler.handle

    def initialize(self, context: Context) -> None:
        """Load the model that the manifest names. Raises ``ValueError`` or ``ImportError`` with what is missing."""
        config = context.model_yaml_config or {}
        directory = Path(context.system_properties["model_dir"])
        named = (context.manifest or {}).get("model", {})
        if not named.get("serializedFile"):
            raise ValueError("The archive names no model: give --serialized-file")
        path = directory / named["serializedFile"]
        code = directory / (named.get("modelFile") or "model.py")
        gpu = context.system_properties.get("gpu_id")
        name, source = source_of(
            path,
            config,
            gpu=gpu,
            threads=worker_threads(),
            handler_threads=getattr(context, "handler_threads", 1),  # in a handler's test the context may be anything
            code=code if code.is_file() else None,
            own_files=getattr(context, "own_files", False),
        )
        self.runtime = open_model(name, source)
        self.runtime.signature = self.signature = servable(complete(self.runtime.signature, config), self.runtime)
        self.model_signature = self.describe()
        logger.info("%s: %s", path.name, self.signature.takes())
        size = int(context.system_properties.get("batch_size") or 1)
        wanted = warm_up_wanted(self.runtime, config)
        warm = getattr(self.runtime, "warm", self.runtime.infer)
        sizes = self.runtime.warm_sizes(size) if hasattr(self.runtime, "warm_sizes") else None
        warm_up(warm, self.signature, wanted, directory=directory, batch_size=size, sizes=sizes)
        self.misfits = Misfits(context.model_name, self.runtime)

    def __copy__(self) -> Self:
        return copied(self, runtime=copy.copy(self.runtime))

    def handle(self, data: list[Any], context: Context) -> list[Any]:
        """Answer a batch: one element per row."""
        if context.get_request_header(0, "describe") == "True":
            return [self.describe()] * len(data)
        begun = perf_counter()
        decoded, answers = read_rows(data, self.decode)
        ready = perf_counter()
        outputs = batches.run(self.runtime.infer, self.signature, list(decoded.values()), self.misfits)
        done = perf_counter()
        for (index, item), arrays in zip(decoded.items(), outputs, strict=True):
            if isinstance(arrays, PredictionError):
                answers[index] = arrays
                continue
            accept = accepted(context, index) if item.style == "npy" else ""
            answers[index] = items.encode(arrays, item, self.signature, accept)
        context.phases.add("preprocess", ready - begun)
        context.phases.add("inference", done - ready)
        context.phases.add("postprocess", perf_counter() - done)
        return [answers[index] for index in range(len(data))]

    def decode(self, row: Any) -> items.Item:
        """The item in a row. Raises :class:`PredictionError` with status 400 for one that the model does not take."""
        return self.checked(items.decode(row, self.signature))

    def checked(self, item: items.Item) -> items.Item:
        """``item``, if the runtime has nothing against it."""
        if (check := getattr(self.runtime, "check", None)) is not None:
            check(item.arrays)
        return item

    def describe(self) -> dict[str, Any]:
        """The runtime, and the inputs and outputs with dtype and shape."""
        return {"runtime": self.runtime.name, **self.signature.describe()}


def warm_up_wanted(runtime: Runtime, config: Mapping[str, Any]) -> Any:
    """The ``warmup:`` section; where there is none, whether this model is one whose first calls take seconds."""
    if "warmup" in config:
        return config["warmup"]
    if not getattr(runtime, "wants_warm_up", False):
        return False
    if any(one.item_shape is None for one in runtime.signature.inputs):
        logger.warning("The first requests will wait for the compiler: give warmup: in model-config.yaml")
        return False
    return True


def complete(signature: Signature, config: Mapping[str, Any]) -> Signature:
    """What the file says, with what model-config.yaml says of the same tensors laid over it."""
    inputs, outputs = signature
    if config.get("inputs") is not None:
        given = declared(config["inputs"], "inputs")
        unknown = [one.name for one in given if one.name not in {known.name for known in inputs}]
        if unknown and len(given) != len(inputs):
            raise ValueError(
                f"inputs in model-config.yaml: {', '.join(unknown)} not among the model's inputs "
                f"({', '.join(one.name for one in inputs)})"
            )
        inputs = given if unknown else _over(inputs, given)  # as many, under other names: they are renamed, in order
    if config.get("outputs") is not None:
        given = declared(config["outputs"], "outputs")
        outputs = _over(outputs, given) if outputs else given
    return Signature(inputs, outputs)


def servable(signature: Signature, runtime: Runtime) -> Signature:
    """``signature``. Raises ``ValueError`` for an input or output whose numbers no request or answer can hold, and for
    inputs of unknown size to a runtime that does not check it."""
    if getattr(runtime, "unchecked", False) and any(not one.dtype or one.shape is None for one in signature.inputs):
        example = ", ".join(f"{one.name}: {{dtype: float32, shape: [-1, 3]}}" for one in signature.inputs)
        raise ValueError(
            f"{runtime.name} reads beyond an input that is smaller than what it was compiled for: give the dtype and "
            f"shape of each in model-config.yaml, as in inputs: {{{example}}}, -1 for what varies"
        )
    for one in (*signature.inputs, *signature.outputs):
        if one.dtype not in OPEN_INFERENCE and one.dtype:
            raise ValueError(f"{one.name!r} is {one.dtype}, which no request or answer can hold")
        if one.dtype == BFLOAT16 and not getattr(runtime, "takes_bfloat16", False):
            raise ValueError(
                f"{one.name!r} is bfloat16, which {runtime.name} does not take from NumPy: export the model with "
                "float32 inputs and outputs"
            )
    return signature


def _over(known: tuple[Tensor, ...], given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    by_name = {one.name: one for one in given}
    return tuple(
        one
        if (new := by_name.get(one.name)) is None
        else one._replace(
            dtype=new.dtype or one.dtype, shape=new.shape if new.shape is not None else one.shape, axis=new.axis
        )
        for one in known
    )


def accepted(context: Context, index: int) -> str:
    """The request's ``Accept`` header."""
    headers = context.get_all_request_header(index)
    return next((str(value) for name, value in headers.items() if name.lower() == "accept"), "")
