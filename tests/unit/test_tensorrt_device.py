"""The device part of TensorRT, line by line, with a CUDA and a TensorRT made of host memory: what it asks of both, in
which order, and what it makes of their errors. That the real ones do it is for tests/gpu to show."""

import copy
import ctypes
import enum
import importlib
import sys
import types

import pytest

np = pytest.importorskip("numpy")

from mlserve.handlers.formats import Source, open_model  # noqa: E402


class Error(enum.Enum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2


class Kind(enum.Enum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class Cuda:
    """Host and device memory are two sets of buffers; a copy from the wrong one fails."""

    cudaError_t, cudaMemcpyKind, cudaStreamNonBlocking = Error, Kind, 1

    def __init__(self):
        self.memory = {"host": {}, "device": {}}
        self.full = False
        self.synchronized = 0

    def take(self, kind, size):
        if self.full:
            return Error.cudaErrorMemoryAllocation, None
        buffer = ctypes.create_string_buffer(size)
        self.memory[kind][ctypes.addressof(buffer)] = buffer
        return Error.cudaSuccess, ctypes.addressof(buffer)

    def cudaMallocHost(self, size):
        return self.take("host", size)

    def cudaMalloc(self, size):
        return self.take("device", size)

    def cudaFreeHost(self, address):
        self.memory["host"].pop(address)
        return (Error.cudaSuccess,)

    def cudaFree(self, address):
        self.memory["device"].pop(address)
        return (Error.cudaSuccess,)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        assert stream == 7
        to, of = ("device", "host") if kind is Kind.cudaMemcpyHostToDevice else ("host", "device")
        assert len(self.memory[to][target]) >= size
        assert len(self.memory[of][source]) >= size
        ctypes.memmove(target, source, size)
        return (Error.cudaSuccess,)

    def cudaSetDevice(self, gpu):
        assert gpu == 1
        return (Error.cudaSuccess,)

    def cudaGetDeviceProperties(self, gpu):
        return Error.cudaSuccess, types.SimpleNamespace(name=b"Fake 100\0\0")

    def cudaStreamCreateWithFlags(self, flags):
        return Error.cudaSuccess, 7

    def cudaStreamSynchronize(self, stream):
        self.synchronized += 1
        return (Error.cudaSuccess,)

    def cudaGetErrorString(self, error):
        return Error.cudaSuccess, b"out of memory"


class Context:
    """Doubles ``x`` into ``y``. Shapes must be set after the profile, addresses before the run."""

    def __init__(self):
        self.profile, self.shape, self.addresses, self.fails = 0, None, {}, False

    def set_optimization_profile_async(self, index, stream):
        self.profile, self.shape = index, None
        return True

    def set_input_shape(self, name, shape):
        self.shape = tuple(shape)
        return shape[0] <= (4, 16)[self.profile]

    def get_tensor_shape(self, name):
        return self.shape

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        if self.fails:
            return False
        count = int(np.prod(self.shape))
        given, wanted = (
            np.frombuffer((ctypes.c_char * (4 * count)).from_address(self.addresses[name]), np.float32)
            for name in ("x", "y")
        )
        wanted[:] = given * 2
        return True


class Engine:
    num_io_tensors, num_optimization_profiles = 2, 2

    context = None  # the latest

    def get_tensor_name(self, index):
        return "xy"[index]

    def get_tensor_mode(self, name):
        return Mode.INPUT if name == "x" else Mode.OUTPUT

    def get_tensor_dtype(self, name):
        return types.SimpleNamespace(name="FLOAT")

    def get_tensor_shape(self, name):
        return (-1, 3)

    def get_tensor_location(self, name):
        return Location.DEVICE

    def get_tensor_profile_shape(self, name, index):
        assert name == "x"
        return [(1, 3), (2, 3), ((4, 16)[index], 3)]

    def create_execution_context(self):
        self.context = Context()
        return self.context


Mode = enum.Enum("Mode", "INPUT OUTPUT")
Location = enum.Enum("Location", "DEVICE HOST")


class Logger:
    ERROR, INTERNAL_ERROR, WARNING = range(3)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """The fakes in place of the packages, and a file that they load."""
    cuda, engine = Cuda(), Engine()

    class Runtime:
        def __init__(self, log):
            self.log = log

        def deserialize_cuda_engine(self, data):
            if data == b"plan":
                return engine
            self.log.log(Logger.WARNING, "not this one")
            self.log.log(Logger.ERROR, "expecting library version 10.1 got 8.6, please rebuild.")
            return None

    trt = types.SimpleNamespace(
        ILogger=Logger,
        Runtime=Runtime,
        TensorIOMode=Mode,
        TensorLocation=Location,
        __version__="10.1",
        init_libnvinfer_plugins=lambda log, namespace: True,
    )
    Logger.__init__ = lambda self: None
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", types.SimpleNamespace(runtime=cuda))
    monkeypatch.delitem(sys.modules, "mlserve.handlers.formats.tensorrt_device", raising=False)
    (tmp_path / "m.plan").write_bytes(b"plan")
    yield types.SimpleNamespace(cuda=cuda, engine=engine, source=Source(tmp_path / "m.plan", gpu=1))
    sys.modules.pop("mlserve.handlers.formats.tensorrt_device", None)
    importlib.invalidate_caches()


def rows(count):
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


def test_every_batch_is_its_own_answer_also_on_another_profile_and_in_grown_buffers(machine):
    found = open_model("tensorrt", machine.source)
    assert found.name == "tensorrt 10.1, GPU 1 (Fake 100), profiles: 2"
    answers = [found.infer({"x": rows(count)})["y"] for count in (1, 4, 9, 2, 20)]
    for count, answer in zip((1, 4, 9, 2, 20), answers, strict=True):
        np.testing.assert_array_equal(answer, rows(count) * 2)  # kept until now: the buffers were used again since
    assert machine.cuda.synchronized == 6, "20 rows are two runs"
    assert [len(kind) for kind in machine.cuda.memory.values()] == [2, 2], "outgrown buffers must be given back"


def test_a_copy_for_another_thread_computes_in_memory_of_its_own(machine):
    found = open_model("tensorrt", machine.source)
    other = copy.copy(found)
    found.infer({"x": rows(2)})
    held = {kind: set(known) for kind, known in machine.cuda.memory.items()}
    np.testing.assert_array_equal(other.infer({"x": rows(3)})["y"], rows(3) * 2)
    assert all(held[kind] < set(machine.cuda.memory[kind]) for kind in held), "buffers of the first were used or freed"
    assert found._engine._context is not other._engine._context


def test_what_tensorrt_logged_is_why_a_file_is_refused(machine):
    machine.source.path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"m\.plan was built by TensorRT 8\.6, here is 10\.1"):
        open_model("tensorrt", machine.source)


def test_a_run_that_fails_is_an_error_and_no_old_answer(machine):
    found = open_model("tensorrt", machine.source)
    found.infer({"x": rows(2)})
    machine.engine.context.fails = True
    with pytest.raises(RuntimeError, match="TensorRT failed"):
        found.infer({"x": rows(2)})


def test_an_error_of_cuda_is_named(machine):
    found = open_model("tensorrt", machine.source)
    machine.cuda.full = True
    with pytest.raises(RuntimeError, match=r"CUDA: out of memory \(cudaErrorMemoryAllocation\)"):
        found.infer({"x": rows(2)})
