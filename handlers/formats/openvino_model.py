"""OpenVINO: its own files (``.xml`` with the ``.bin`` beside it), and ``.onnx`` with ``runtime: openvino``.

Options under ``openvino:`` in model-config.yaml: ``device`` (CPU unless given) and ``config``, OpenVINO's own
properties. Numbers are float32 unless ``config`` says otherwise: OpenVINO's default is bfloat16 on CPUs that have it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import openvino

from mlserve.handler import PredictionError

from ..copies import copied
from ..signature import Dim, Signature, Tensor, shape_text, with_batch_axis
from . import Source

if TYPE_CHECKING:
    from . import Arrays

logger = logging.getLogger(__name__)

KEPT = 4096  # shapes that are known to fit

_TYPES = {
    "boolean": "bool",
    "string": "str",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    **{
        f"{letter}{bits}": f"{kind}{bits}" for letter, kind in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)
    },
}


class OpenVinoModel:
    """A compiled model with its signature."""

    input_errors = (RuntimeError,)

    def __init__(self, source: Source) -> None:
        core = openvino.Core()
        device = str(source.options.get("device") or "CPU")
        if source.gpu is not None:
            logger.warning("OpenVINO has no NVIDIA GPUs: using %s. deviceType: cpu says that this is meant", device)
        try:
            model = core.read_model(str(source.path))
        except RuntimeError as error:
            raise ValueError(f"{source.path.name} is not a model that OpenVINO can read ({_last(error)})") from error
        model = widened(model)
        try:
            compiled = core.compile_model(model, device, properties(source, device))
        except RuntimeError as error:
            raise ValueError(
                f"OpenVINO cannot compile {source.path.name} for {device}, it has {core.available_devices}: see "
                f"openvino: in model-config.yaml ({_last(error)})"
            ) from error
        self.name = f"openvino {openvino.__version__.partition('-')[0]}, {device}"
        self.signature = signature_of(compiled.inputs, compiled.outputs)
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._model = model if any(open_lengths(one) for one in self.signature.inputs) else None
        self._reshaping = threading.Lock()  # of the model, which all copies share
        self._taken: set[tuple[tuple[int, ...], ...]] = set()
        logger.info("%s: %s", source.path.name, self.name)

    def __copy__(self) -> OpenVinoModel:
        return copied(self, _request=self._compiled.create_infer_request())

    def infer(self, inputs: Arrays) -> Arrays:
        """See :class:`Runtime`."""
        given = {index: inputs[one.name] for index, one in enumerate(self.signature.inputs)}
        outputs = self._request.infer(given, share_inputs=True)
        return {one.name: outputs[index] for index, one in enumerate(self.signature.outputs)}

    def check(self, arrays: Arrays) -> None:
        """See :class:`Runtime`. Raises :class:`PredictionError` for lengths that the model's operations do not take.

        Where the file leaves a length open, OpenVINO computes with whatever comes: a matrix product reads memory
        beyond a row that is too short. The model as it was before it was compiled knows better, for 30 ms (MiniLM)
        for lengths that are new to this worker.
        """
        if self._model is None:
            return
        lengths = tuple(of_a_row(arrays[one.name].shape, one) for one in self.signature.inputs)
        if lengths in self._taken:
            return
        given = {index: openvino.PartialShape(list(length)) for index, length in enumerate(lengths)}
        try:
            with self._reshaping:
                self._model.reshape(given)
        except RuntimeError as error:
            sent = ", ".join(
                f"{one.name} {shape_text([size for size in length if size >= 0])}"
                for one, length in zip(self.signature.inputs, lengths, strict=True)
            )
            raise PredictionError(400, f"The model does not take {sent}: {_last(error)}") from None
        if len(self._taken) >= KEPT:
            self._taken.clear()
        self._taken.add(lengths)


def open_model(source: Source) -> OpenVinoModel:
    """See :func:`mlserve.handlers.formats.open_model`."""
    return OpenVinoModel(source)


def open_lengths(tensor: Tensor) -> bool:
    """Whether the file leaves more open than the batch."""
    return tensor.item_shape is None or not all(isinstance(dim, int) for dim in tensor.item_shape)


def of_a_row(shape: tuple[int, ...], tensor: Tensor) -> tuple[int, ...]:
    """``shape`` with -1 for the batch."""
    return shape if tensor.axis is None else (*shape[: tensor.axis], -1, *shape[tensor.axis + 1 :])


def widened(model: Any) -> Any:
    """``model`` with float32 where it takes or gives bfloat16, which NumPy has not."""
    narrow = openvino.Type.bf16
    if not any(port.element_type == narrow for port in (*model.inputs, *model.outputs)):
        return model
    converted = openvino.preprocess.PrePostProcessor(model)
    for ports, part in ((model.inputs, converted.input), (model.outputs, converted.output)):
        for index, port in enumerate(ports):
            if port.element_type == narrow:
                part(index).tensor().set_element_type(openvino.Type.f32)
    return converted.build()


def properties(source: Source, device: str) -> dict[str, Any]:
    """What to compile with: a stream of threads for each batch at once, and whatever ``config`` says instead."""
    given = source.options.get("config") or {}
    if not isinstance(given, dict):
        raise ValueError(f"openvino: config in model-config.yaml must map properties to values, got {given!r}")
    usual: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        usual |= {"INFERENCE_NUM_THREADS": source.threads * source.handler_threads, "INFERENCE_PRECISION_HINT": "f32"}
        if source.handler_threads > 1:
            usual["NUM_STREAMS"] = source.handler_threads
    return {**usual, **given}


def signature_of(inputs: Sequence[Any], outputs: Sequence[Any]) -> Signature:
    """As the file declares them. OpenVINO keeps no names of dimensions; a tensor may lack one, too."""
    return with_batch_axis(_tensors(inputs, "input"), _tensors(outputs, "output"))


def _tensors(ports: Sequence[Any], unnamed: str) -> list[Tensor]:
    return [
        Tensor(
            str(port.get_any_name()) if port.names else unnamed if len(ports) == 1 else f"{unnamed}_{index}",
            _TYPES.get(port.element_type.get_type_name(), ""),
            _shape(port.partial_shape),
        )
        for index, port in enumerate(ports)
    ]


def _shape(shape: Any) -> tuple[Dim, ...] | None:
    if shape.rank.is_dynamic:
        return None
    return tuple(None if dim.is_dynamic else int(dim.get_length()) for dim in shape)


def _last(error: RuntimeError) -> str:
    """The line that says what is wrong: the ones before it are OpenVINO's own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
