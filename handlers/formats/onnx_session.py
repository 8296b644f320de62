"""ONNX files, run by ONNX Runtime.

Providers are taken in the order CUDA, OpenVINO, CPU, as far as the installed build has them: on a worker with a GPU
CUDA, and OpenVINO in the build that is made for it. TensorRT comes first where ``onnx: {tensorrt: true}`` asks for it:
it builds an engine at each load, for minutes. ``onnx: {providers: [...]}`` in model-config.yaml says it all.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtimes import open_session, session_threads
from ..signature import Signature, Tensor, with_batch_axis
from . import Source

if TYPE_CHECKING:
    from . import Arrays

logger = logging.getLogger(__name__)

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO, CPU = "OpenVINOExecutionProvider", "CPUExecutionProvider"
_KEYS = ("providers", "tensorrt", "openvino", "inter_op_threads")
_TYPES = {"float": "float32", "double": "float64", "string": "str"}


class OnnxModel:
    """A session with its signature. On a GPU inputs and outputs go through an IO binding."""

    def __init__(self, source: Source) -> None:
        import onnxruntime
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

        self.input_errors = (Fail, InvalidArgument, RuntimeException)
        self._session = open_session(
            onnxruntime,
            source.path,
            providers(source, onnxruntime.get_available_providers()),
            session_threads(source.threads, source.handler_threads),
            inter_op_num_threads=int(source.options.get("inter_op_threads", 1)),
            log_severity_level=3,  # its warnings are about the graph, not about requests
        )
        used = self._session.get_providers()
        self.name = f"onnxruntime {onnxruntime.__version__}, {', '.join(used)}"
        self.signature = signature_of(self._session)
        self._outputs = [tensor.name for tensor in self.signature.outputs]
        self._texts = {tensor.name for tensor in self.signature.outputs if tensor.dtype == "str"}
        self._bound = used[0] in (CUDA, TENSORRT)
        self._gpu = source.gpu or 0
        logger.info("%s: %s", source.path.name, self.name)

    def infer(self, inputs: Arrays) -> Arrays:
        """See :class:`Runtime`."""
        if self._bound:
            return self._infer_bound(inputs)
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))

    def _infer_bound(self, inputs: Arrays) -> Arrays:
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in self._outputs:  # of a size that only the run knows; a GPU holds no text
            if name in self._texts:
                binding.bind_output(name)
            else:
                binding.bind_output(name, "cuda", self._gpu)
        self._session.run_with_iobinding(binding)
        return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))


def open_model(source: Source) -> OnnxModel:
    """See :func:`mlserve.handlers.formats.open_model`."""
    return OnnxModel(source)


def providers(source: Source, available: list[str]) -> list[Any]:
    """What to ask onnxruntime for. Raises ``ValueError`` for an unknown option, and for a provider that the options
    name and this onnxruntime has not."""
    options = source.options
    unknown = [str(key) for key in options if key not in _KEYS]
    if unknown:
        raise ValueError(f"onnx in model-config.yaml: unknown {', '.join(unknown)}; known are {', '.join(_KEYS)}")
    named = options.get("providers")
    asked = [one for one, key in ((TENSORRT, "tensorrt"), (OPENVINO, "openvino")) if options.get(key)]
    missing = [str(one) for one in named or asked if one not in available]
    if missing:
        raise ValueError(
            f"onnx in model-config.yaml asks for {', '.join(missing)}; this onnxruntime has {', '.join(available)}"
        )
    wanted = list(named) if named is not None else _usual(source, available)
    if CPU not in wanted:
        wanted.append(CPU)
    given: dict[str, dict[str, Any]] = {
        CUDA: {"device_id": source.gpu or 0},
        TENSORRT: {"device_id": source.gpu or 0},
        OPENVINO: {"device_type": "CPU", "num_of_threads": str(source.threads)},
    }
    return [(one, given[one]) if one in given else one for one in wanted]


def _usual(source: Source, available: list[str]) -> list[str]:
    """The providers for this worker, the fastest first."""
    wanted = []
    if source.gpu is not None:
        wanted = [TENSORRT, CUDA] if source.options.get("tensorrt") else [CUDA]
        if CUDA not in available:
            logger.warning("This worker has a GPU, but this onnxruntime cannot use it: pip install onnxruntime-gpu")
    elif source.options.get("tensorrt"):
        raise ValueError("onnx: tensorrt in model-config.yaml needs a GPU, and this worker has none: remove it")
    if source.options.get("openvino", True):
        wanted.append(OPENVINO)
    return [one for one in wanted if one in available]


def signature_of(session: Any) -> Signature:
    """Inputs and outputs as the file declares them. Raises ``ValueError`` for one that is no tensor."""
    return with_batch_axis(
        [_tensor(one) for one in session.get_inputs()], [_tensor(one) for one in session.get_outputs()]
    )


def _tensor(node: Any) -> Tensor:
    if not str(node.type).startswith("tensor("):
        zipmap = ": export with options={'zipmap': False} of skl2onnx" if "map(" in node.type else ""
        raise ValueError(f"{node.name!r} of the ONNX file is {node.type}, and only tensors can be served{zipmap}")
    inner = str(node.type).removeprefix("tensor(").removesuffix(")")
    shape = None if node.shape is None else tuple(dim or None for dim in node.shape)
    return Tensor(node.name, _TYPES.get(inner, inner), shape)
