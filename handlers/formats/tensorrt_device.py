"""The part of the TensorRT runtime that needs a GPU: deserialize an engine, and run it through pinned buffers.

For each batch at once a stream, an execution context, and per tensor a pinned host buffer and a device buffer, which
grow to the largest batch seen. Copies are asynchronous on that stream: from pageable memory each would wait for the one
before.
"""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorrt
from cuda.bindings import runtime as cuda

from ..copies import copied
from .tensorrt_engine import TYPES, Binding, EngineRefused, Profile

if TYPE_CHECKING:
    from . import Arrays


class _Log(tensorrt.ILogger):  # type: ignore[misc]  # the package has no types
    """Keeps the warnings and errors of TensorRT, which raises nothing."""

    def __init__(self) -> None:
        tensorrt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        """Called by TensorRT, from any thread."""
        if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
            self.lines.append(message)


class _Buffer:
    """Pinned host memory and device memory of one size."""

    def __init__(self) -> None:
        self.size = 0
        self.host = 0
        self.device = 0

    def reserve(self, size: int) -> None:
        """Hold at least ``size`` bytes."""
        if size <= self.size:
            return
        self.free()
        (self.host,) = _checked(cuda.cudaMallocHost(size))
        (self.device,) = _checked(cuda.cudaMalloc(size))
        self.size = size

    def view(self, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """The pinned memory as an array."""
        count = math.prod(shape)
        raw: Any = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(int(self.host))
        return np.frombuffer(raw, dtype=dtype, count=count).reshape(shape)

    def free(self) -> None:
        """Give the memory back."""
        if self.size:
            cuda.cudaFreeHost(self.host)
            cuda.cudaFree(self.device)
        self.size = 0


class DeviceEngine:
    """An :class:`Engine` on a GPU."""

    def __init__(self, path: Path, gpu: int) -> None:
        self._gpu = gpu
        _checked(cuda.cudaSetDevice(gpu))
        (properties,) = _checked(cuda.cudaGetDeviceProperties(gpu))
        self.device = f"GPU {gpu} ({_text(properties.name)})"
        self.version = str(tensorrt.__version__)
        self._log = _Log()
        tensorrt.init_libnvinfer_plugins(self._log, "")
        self._runtime = tensorrt.Runtime(self._log)  # must outlive the engine
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineRefused(*self._log.lines)
        self.bindings = [_binding(self._engine, index) for index in range(self._engine.num_io_tensors)]
        self.profiles = [self._profile(index) for index in range(self._engine.num_optimization_profiles)]
        self._prepare()

    def _prepare(self) -> None:
        """What a batch has to itself while it runs."""
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineRefused(*self._log.lines)
        (self._stream,) = _checked(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        self._buffers = {one.name: _Buffer() for one in self.bindings}
        self._active = 0

    def __copy__(self) -> DeviceEngine:
        """The same weights, for a batch beside another: a context, a stream and buffers of its own."""
        made = copied(self)
        _checked(cuda.cudaSetDevice(self._gpu))
        made._prepare()
        return made

    def _profile(self, index: int) -> Profile:
        found = {}
        for one in self.bindings:
            if one.is_input and not one.host:
                smallest, _, largest = self._engine.get_tensor_profile_shape(one.name, index)
                found[one.name] = (tuple(smallest), tuple(largest))
        return found

    def run(self, profile: int, inputs: Arrays) -> Arrays:
        """See :class:`Engine`."""
        _checked(cuda.cudaSetDevice(self._gpu))  # it is the calling thread's
        if profile != self._active:
            self._must(self._context.set_optimization_profile_async(profile, int(self._stream)))
            self._active = profile
        for name, array in inputs.items():
            self._must(self._context.set_input_shape(name, array.shape))
            self._send(name, array)
        outputs = {one.name: self._expect(one) for one in self.bindings if not one.is_input}
        self._must(self._context.execute_async_v3(int(self._stream)))
        for name, array in outputs.items():
            buffer = self._buffers[name]
            kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
            _checked(cuda.cudaMemcpyAsync(buffer.host, buffer.device, array.nbytes, kind, self._stream))
        _checked(cuda.cudaStreamSynchronize(self._stream))
        return {name: array.copy() for name, array in outputs.items()}  # the next batch writes where these are

    def _send(self, name: str, array: np.ndarray[Any, Any]) -> None:
        buffer = self._buffers[name]
        buffer.reserve(array.nbytes)
        buffer.view(array.dtype.name, array.shape)[...] = array
        kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(cuda.cudaMemcpyAsync(buffer.device, buffer.host, array.nbytes, kind, self._stream))
        self._must(self._context.set_tensor_address(name, int(buffer.device)))

    def _expect(self, binding: Binding) -> np.ndarray[Any, Any]:
        """Where an output will be. Raises ``ValueError`` for one whose size depends on values, not on shapes."""
        shape = tuple(self._context.get_tensor_shape(binding.name))
        if any(size < 0 for size in shape):
            raise ValueError(f"The engine's {binding.name} is as long as its values say: {list(shape)}; not supported")
        buffer, dtype = self._buffers[binding.name], TYPES[binding.dtype]
        buffer.reserve(max(math.prod(shape) * np.dtype(dtype).itemsize, 1))
        self._must(self._context.set_tensor_address(binding.name, int(buffer.device)))
        return buffer.view(dtype, shape)

    def _must(self, done: bool) -> None:
        if not done:
            said = "; ".join(self._log.lines[-3:]) or "it does not say why"
            self._log.lines.clear()
            raise RuntimeError(f"TensorRT failed: {said}")


def load_engine(path: Path, gpu: int) -> DeviceEngine:
    """The engine of a file on a GPU. Raises :class:`EngineRefused`, ``RuntimeError`` for what CUDA says."""
    return DeviceEngine(path, gpu)


def _binding(engine: Any, index: int) -> Binding:
    name = str(engine.get_tensor_name(index))
    return Binding(
        name,
        engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT,
        str(engine.get_tensor_dtype(name).name),
        tuple(engine.get_tensor_shape(name)),
        engine.get_tensor_location(name) == tensorrt.TensorLocation.HOST,
    )


def _checked(result: Any) -> tuple[Any, ...]:
    """What a call of CUDA gave. Raises ``RuntimeError`` that names its error."""
    error, *values = result
    if error != cuda.cudaError_t.cudaSuccess:
        _, text = cuda.cudaGetErrorString(error)
        raise RuntimeError(f"CUDA: {_text(text)} ({error.name})")
    return tuple(values)


def _text(value: Any) -> str:
    return value.decode().rstrip("\0") if isinstance(value, bytes) else str(value)
