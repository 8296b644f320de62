"""TensorFlow SavedModels: a folder with ``saved_model.pb``, by its ``serving_default`` signature.

Options under ``tensorflow:`` in model-config.yaml: ``signature``, another of the file's signatures.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..signature import BFLOAT16, Signature, Tensor, numpy_name, with_batch_axis
from . import Source

if TYPE_CHECKING:
    from . import Arrays

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else every worker logs the machine's instruction sets as warnings

import tensorflow as tf

logger = logging.getLogger(__name__)

DEFAULT = "serving_default"


class SavedModel:
    """One signature of a SavedModel."""

    takes_bfloat16 = True  # as float32, which becomes it
    input_errors = (tf.errors.InvalidArgumentError,)

    def __init__(self, source: Source) -> None:
        self.name = f"tensorflow {tf.__version__}, {use_device(source)}"
        folder = source.path.parent if source.path.is_file() else source.path
        try:
            self._model = tf.saved_model.load(str(folder))  # holds the variables: the function alone does not
        except Exception as error:  # its own errors, of protobuf, of the file system
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"{source.path.name} is not a SavedModel that tensorflow can load ({reason})") from error
        self._function = function_of(self._model.signatures, source)
        self.signature = signature_of(self._function)
        logger.info("%s: %s", source.path.name, self.name)

    def infer(self, inputs: Arrays) -> Arrays:
        """See :class:`Runtime`."""
        wide = {one.name for one in self.signature.inputs if one.dtype == BFLOAT16}
        outputs = self._function(
            **{name: tf.constant(array, tf.bfloat16 if name in wide else None) for name, array in inputs.items()}
        )
        return {name: _array(value) for name, value in outputs.items()}


def open_model(source: Source) -> SavedModel:
    """See :func:`mlserve.handlers.formats.open_model`."""
    return SavedModel(source)


def use_device(source: Source) -> str:
    """Keep TensorFlow to the worker's GPU and threads; what it uses then. It is told once, before anything runs."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(source.threads)
        tf.config.threading.set_inter_op_parallelism_threads(source.handler_threads)  # functions run in these
        gpus = tf.config.list_physical_devices("GPU")
        if source.gpu is not None and source.gpu < len(gpus):
            tf.config.set_visible_devices(gpus[source.gpu], "GPU")
            tf.config.experimental.set_memory_growth(gpus[source.gpu], True)  # not all of it: others work there too
            return f"GPU {source.gpu}"
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        logger.warning("TensorFlow was set up by another part of this process already: %s", error)
    if source.gpu is not None:
        logger.warning("This worker was given a GPU, but tensorflow %s sees none: using the CPU", tf.__version__)
    return "CPU"


def function_of(signatures: Mapping[str, Any], source: Source) -> Any:
    """The signature to serve. Raises ``ValueError`` that names those there are."""
    name = str(source.options.get("signature") or DEFAULT)
    if name not in signatures:
        there = ", ".join(signatures) or "none: export it with model.export(), or with signatures="
        raise ValueError(
            f"The SavedModel has no signature {name}; it has {there}. tensorflow: {{signature: NAME}} in "
            "model-config.yaml chooses one"
        )
    return signatures[name]


def signature_of(function: Any) -> Signature:
    """As the file declares it. TensorFlow has no names of dimensions."""
    return with_batch_axis(
        [_tensor(name, spec) for name, spec in function.structured_input_signature[1].items()],
        [_answered(_tensor(name, spec)) for name, spec in function.structured_outputs.items()],
    )


def _tensor(name: str, spec: Any) -> Tensor:
    dtype = {"string": "str"}.get(spec.dtype.name, spec.dtype.name)
    return Tensor(name, dtype, None if spec.shape.rank is None else tuple(spec.shape.as_list()))


def _answered(tensor: Tensor) -> Tensor:
    return tensor._replace(dtype=numpy_name(tensor.dtype))


def _array(value: Any) -> np.ndarray[Any, Any]:
    if value.dtype == tf.bfloat16:  # NumPy has none
        value = tf.cast(value, tf.float32)
    return np.asarray(value.numpy())
