"""Which of a model's errors are answered 400, and what the answer says."""

import logging

import pytest

np = pytest.importorskip("numpy")

from mlserve.handlers.batches import run  # noqa: E402
from mlserve.handlers.items import Item  # noqa: E402
from mlserve.handlers.misfits import Misfits, reason  # noqa: E402
from mlserve.handlers.signature import Signature, Tensor, WrongOutput  # noqa: E402

SCRIPT = """The following operation failed in the TorchScript interpreter.
Traceback of TorchScript (most recent call last):
  File "net.py", line 5, in forward
    def forward(s,x): return s.l(x)
                             ~~~ <--- HERE
RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and 10x2)
"""
COMPILED = """RuntimeError when making fake tensor call
  Explanation: Dynamo failed to run FX node with fake tensors: call_function <linear>(*(FakeTensor(..., size=(1, 3)), \
**{}): got RuntimeError('a and b must have same reduction dim, but got [1, 3] X [10, 2].')
  Hint: Your code may result in an error when running in eager.
"""
ONNX = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'' Status Message: "
    "matmul_helper.h:59 Compute MatMul dimension mismatch"
)
OPENVINO = """Exception from src/inference/src/cpp/infer_request.cpp:224:
[CPU] Reshape node with name 'y' failed at src/plugins/reshape.cpp:77:
[cpu]reshape: the shape of input data (1.3) conflicts with the reshape pattern (-1.7)
"""


class TenNumbers:
    """A model that says nothing of its input, takes ten numbers from 0 to 9, and fails as torch does."""

    name = "ten"
    input_errors = (RuntimeError, IndexError)

    def __init__(self, shape=None, dtype=""):
        self.signature = Signature((Tensor("x", dtype, shape),), ())
        self.calls = []
        self.breaks = None

    def infer(self, inputs):
        x = inputs["x"]
        self.calls.append(len(x))
        if self.breaks is not None:
            raise self.breaks
        if x.shape[1:] != (10,):
            raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({len(x)}x{x.shape[-1]} and 10x2)")
        if x.max() > 9:
            raise IndexError("index out of range in self")
        return {"y": x.sum(1)}


def item(*shape, fill=0.0, whole=False):
    array = np.full(shape if whole else (1, *shape), fill, np.float32)
    return Item({"x": array}, len(array), whole)


def answers(model, *items, misfits=None):
    return run(model.infer, model.signature, items, misfits or Misfits("lin", model))


def test_a_wrong_shape_is_refused_with_the_reason_and_the_shapes_that_were_answered():
    model = TenNumbers()
    misfits = Misfits("lin", model)
    first, second, third = answers(model, item(3), item(10), item(3), misfits=misfits)
    assert first.status == third.status == 400
    assert first.message.startswith(
        "lin does not take x [3] float32: mat1 and mat2 shapes cannot be multiplied (1x3 and 10x2). "
        "It has answered nothing so far: inputs: in model-config.yaml"
    )
    assert second["y"].tolist() == [0.0]
    assert model.calls == [2, 1, 1, 1]  # the good one is called once, in a call of its own
    (late,) = answers(model, item(2, 4, whole=True), misfits=misfits)
    assert late.message.startswith("lin does not take x [4] float32, 2 rows of it: ")
    assert late.message.endswith("It has answered x [10] float32")


def test_a_wrong_value_is_refused_and_its_batch_is_answered():
    good, bad, other = answers(TenNumbers((None, 10), "float32"), item(10), item(10, fill=99), item(10, fill=1))
    assert (good["y"].tolist(), other["y"].tolist()) == ([0.0], [10.0])
    assert bad.status == 400
    assert (
        bad.message
        == "lin does not take x [10] float32: index out of range in self. The shape is right, the values are not"
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("Expected all tensors to be on the same device, but found at least two devices"),
        NotImplementedError("Could not run 'aten::_slow_conv2d_forward' with arguments from the 'CUDA' backend"),
        AttributeError("'Net' object has no attribute 'head'"),
    ],
    ids=["device", "memory", "same-device", "not-implemented", "code"],
)
def test_an_error_that_no_input_causes_is_no_refusal(error):
    model = TenNumbers()
    model.breaks = error
    with pytest.raises(type(error)):
        answers(model, item(10))


def test_an_error_on_what_was_answered_before_or_is_declared_is_the_model_s():
    model = TenNumbers()
    misfits = Misfits("lin", model)
    answers(model, item(10), misfits=misfits)
    declared = TenNumbers((None, 10), "float32")
    model.breaks = declared.breaks = RuntimeError("the state of the model is gone")
    with pytest.raises(RuntimeError, match="is gone"):
        answers(model, item(10), misfits=misfits)
    with pytest.raises(RuntimeError, match="is gone"):
        answers(declared, item(10))


def test_outputs_that_do_not_fit_their_description_are_no_refusal():
    model = TenNumbers()
    model.infer = lambda inputs: {"y": np.zeros(7)}
    with pytest.raises(WrongOutput, match="axis 0 is not the batch"):
        answers(model, item(10))


def test_a_model_that_answers_nothing_is_logged_with_its_traceback_and_then_as_broken(caplog):
    model = TenNumbers()
    model.breaks = RuntimeError("weights of another shape")
    misfits = Misfits("lin", model)
    with caplog.at_level(logging.WARNING):
        for size in range(12):
            answers(model, item(size), misfits=misfits)
    first, tenth = caplog.records
    assert first.exc_info[1] is model.breaks
    assert tenth.levelname == "ERROR"
    assert (
        tenth.getMessage() == "lin has refused 10 inputs and answered none: it may be broken (weights of another shape)"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (SCRIPT, "mat1 and mat2 shapes cannot be multiplied (1x3 and 10x2)"),
        (COMPILED, "a and b must have same reduction dim, but got [1, 3] X [10, 2]"),
        (ONNX, "matmul_helper.h:59 Compute MatMul dimension mismatch"),
        (OPENVINO, "[cpu]reshape: the shape of input data (1.3) conflicts with the reshape pattern (-1.7)"),
        ("Guard failed: x.size()[2] >= 8", "Guard failed: x.size()[2] >= 8"),
        ("", "RuntimeError"),
    ],
    ids=["torchscript", "compiled", "onnx", "openvino", "export", "none"],
)
def test_the_reason_is_one_line(text, line):
    assert reason(RuntimeError(text)) == line
