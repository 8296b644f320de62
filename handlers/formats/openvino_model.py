"""OpenVINO: its own files (``.xml`` with the ``.bin`` beside it), and ``.onnx`` with ``runtime: openvino``.

Options under ``openvino:`` in model-config.yaml: ``device`` (CPU unless given) and ``config``, OpenVINO's own
properties. Numbers are float32 unless ``config`` says otherwise: OpenVINO's default is bfloat16 on CPUs that have it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import openvino

from ..signature import Dim, Signature, Tensor, with_batch_axis
from . import Source

if TYPE_CHECKING:
    from . import Arrays

logger = logging.getLogger(__name__)

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
        try:
            compiled = core.compile_model(widened(model), device, properties(source, device))
        except RuntimeError as error:
            raise ValueError(
                f"OpenVINO cannot compile {source.path.name} for {device}, it has {core.available_devices}: see "
                f"openvino: in model-config.yaml ({_last(error)})"
            ) from error
        self.name = f"openvino {openvino.__version__.partition('-')[0]}, {device}"
        self.signature = signature_of(compiled.inputs, compiled.outputs)
        self._request = compiled.create_infer_request()
        logger.info("%s: %s", source.path.name, self.name)

    def infer(self, inputs: Arrays) -> Arrays:
        """See :class:`Runtime`."""
        given = {index: inputs[one.name] for index, one in enumerate(self.signature.inputs)}
        outputs = self._request.infer(given, share_inputs=True)
        return {one.name: outputs[index] for index, one in enumerate(self.signature.outputs)}


def open_model(source: Source) -> OpenVinoModel:
    """See :func:`mlserve.handlers.formats.open_model`."""
    return OpenVinoModel(source)


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
    """What to compile with: the worker's threads, one request at a time, and whatever ``config`` says instead."""
    given = source.options.get("config") or {}
    if not isinstance(given, dict):
        raise ValueError(f"openvino: config in model-config.yaml must map properties to values, got {given!r}")
    usual: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        usual |= {"INFERENCE_NUM_THREADS": source.threads, "INFERENCE_PRECISION_HINT": "f32"}
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
