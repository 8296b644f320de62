"""CUDA graphs without a GPU: which one runs a batch, what stands in its other rows, and what comes back of it.

A recorder on the CPU keeps to the rule of a graph: it computes from the memory that it was given, into its own.
"""

import pytest

pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

from mlserve.handlers.formats.cuda_graphs import Captured, CudaGraphs  # noqa: E402
from mlserve.handlers.formats.torchmodel import TorchModel  # noqa: E402
from mlserve.handlers.formats.torchoptions import Options  # noqa: E402
from mlserve.handlers.signature import Signature, Tensor  # noqa: E402

SIGNATURE = Signature(
    (Tensor("x", "float32", (None, 3)), Tensor("state", "float32", (2, None), 1), Tensor("rate", "float32", (), None)),
    (Tensor("y"), Tensor("state", axis=1), Tensor("rate", axis=None)),
)


def network(tensors):
    x, state, rate = tensors
    return {"y": x * rate, "state": state + 1, "rate": rate * 2}


class Recorder:
    def __init__(self):
        self.replayed = []
        self.inputs = {}

    def __call__(self, call, inputs):
        outputs, size = call(inputs), len(inputs[0])
        self.inputs[size] = inputs

        def replay():
            self.replayed.append(size)
            for name, value in call(inputs).items():
                outputs[name].copy_(value)

        return Captured(inputs, outputs, replay)


def batch(rows, width=3, rate=2.0):
    return [torch.randn(rows, width), torch.randn(2, rows), torch.tensor(rate)]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def graphs(recorder):
    made = CudaGraphs(torch.device("cpu"), recorder)
    for rows in (1, 4):
        made.capture(network, batch(rows), SIGNATURE)
    return made


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 4), (3, 4), (4, 4)])
def test_a_batch_runs_on_the_smallest_graph_that_holds_it_with_its_own_rows_only(graphs, recorder, rows, size):
    given = batch(rows, rate=5.0)
    found = graphs.run(given, SIGNATURE)
    assert recorder.replayed == [size]
    for name, value in network(given).items():
        assert torch.equal(found[name], value)
    x, state, _ = recorder.inputs[size]
    assert torch.equal(x[rows:], given[0][-1:].expand(size - rows, 3))  # no row of an earlier request is left
    assert torch.equal(state[:, rows:], given[1][:, -1:].expand(2, size - rows))


@pytest.mark.parametrize("given", [batch(5), batch(2, width=7)], ids=["longer", "wider"])
def test_what_no_graph_holds_is_left_to_the_model_itself(graphs, recorder, given):
    assert graphs.run(given, SIGNATURE) is None
    assert recorder.replayed == []


def test_one_size_is_captured_once(graphs, recorder):
    before = recorder.inputs[4]
    graphs.capture(network, batch(4), SIGNATURE)
    assert recorder.inputs[4] is before


def test_an_output_without_the_batch_is_refused_when_it_is_captured(recorder):
    with pytest.raises(ValueError, match=r"output 'y' has the shape \[1\] for 4 items: axis 0 is not the batch"):
        CudaGraphs(torch.device("cpu"), recorder).capture(
            lambda tensors: {"y": tensors[0].sum().reshape(1)}, batch(4), SIGNATURE
        )


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])], ids=str
)
def test_warm_up_captures_powers_of_two_and_the_batch_size(batch_size, sizes):
    model = TorchModel.__new__(TorchModel)
    model.options, model._graphs = Options(cuda_graphs=True), object()
    assert model.warm_sizes(batch_size) == sizes
    assert model.wants_warm_up
