"""ONNX files, run by ONNX Runtime.

Providers are taken in the order TensorRT (when asked for), CUDA, OpenVINO (when asked for), CPU, as far as the
installed build has them; ``onnx: {providers: [...]}`` in model-config.yaml says otherwise.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..runtimes import open_session
from ..signature import Signature, Tensor, with_batch_axis
from . import Source

if TYPE_CHECKING:
    from . import Arrays

logger = logging.getLogger(__name__)

_TYPES = {"float": "float32", "double": "float64", "string": "str"}


class OnnxModel:
    """A session with its signature. On a GPU inputs and outputs go through an IO binding."""

    def __init__(self, source: Source) -> None:
        import onnxruntime

        self._session = open_session(
            onnxruntime,
            source.path,
            providers(source, onnxruntime.get_available_providers()),
            source.threads,
            inter_op_num_threads=int(source.options.get("inter_op_threads", 1)),
            log_severity_level=3,  # its warnings are about the graph, not about requests
        )
        used = self._session.get_providers()
        self.name = f"onnxruntime {onnxruntime.__version__}, {', '.join(used)}"
        self.signature = signature_of(self._session)
        self._outputs = [tensor.name for tensor in self.signature.outputs]
        self._bound = used[0] in ("CUDAExecutionProvider", "TensorrtExecutionProvider")
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
            binding.bind_cpu_input(name, array)
        for name in self._outputs:  # of a size that only the run knows
            binding.bind_output(name, "cuda", self._gpu)
        self._session.run_with_iobinding(binding)
        return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))


def open_model(source: Source) -> OnnxModel:
    """See :func:`mlserve.handlers.formats.open_model`."""
    return OnnxModel(source)


def providers(source: Source, available: list[str]) -> list[Any]:
    """What to ask onnxruntime for. Raises ``ValueError`` for a provider named in the options that is not there."""
    named = source.options.get("providers")
    if named is not None:
        missing = [one for one in named if one not in available]
        if missing:
            raise ValueError(f"onnx: providers in model-config.yaml: {', '.join(missing)} not in {available}")
        wanted = list(named)
    else:
        wanted = ["CUDAExecutionProvider"] if source.gpu is not None else []
        if source.gpu is not None and source.options.get("tensorrt"):
            wanted.insert(0, "TensorrtExecutionProvider")
        if source.options.get("openvino"):
            wanted.append("OpenVINOExecutionProvider")
        if source.gpu is not None and "CUDAExecutionProvider" not in available:
            logger.warning("This worker has a GPU, but this onnxruntime cannot use it: pip install onnxruntime-gpu")
        wanted = [one for one in wanted if one in available]
    if "CPUExecutionProvider" not in wanted:
        wanted.append("CPUExecutionProvider")
    on_gpu = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
    return [(one, {"device_id": source.gpu or 0}) if one in on_gpu else one for one in wanted]


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
