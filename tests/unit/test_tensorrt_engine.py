"""TensorRT engines behind a fake of what needs the GPU: signature, profiles, cut and filled batches, errors."""

from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from mlserve.handler import PredictionError  # noqa: E402
from mlserve.handlers.batches import run  # noqa: E402
from mlserve.handlers.formats import Source  # noqa: E402
from mlserve.handlers.formats.tensorrt_engine import (  # noqa: E402
    Binding,
    EngineRefused,
    TensorRtModel,
    chosen,
    open_model,
    refusal,
)
from mlserve.handlers.items import decode  # noqa: E402
from mlserve.handlers.warmup import warm_up  # noqa: E402

X, Y = Binding("x", True, "FLOAT", (-1, 3, -1)), Binding("y", False, "HALF", (-1, 3, -1))
SMALL = {"x": ((1, 3, 8), (4, 3, 16))}
LARGE = {"x": ((5, 3, 8), (16, 3, 16))}
WIDE = {"x": ((2, 3, 32), (4, 3, 32))}


class Fake:
    """An engine that doubles, and that fails as TensorRT would for shapes that its profile does not allow."""

    version = "10.14.1"
    device = "GPU 0 (fake)"

    def __init__(self, *profiles, bindings=(X, Y)):
        self.bindings = bindings
        self.profiles = profiles
        self.runs = []

    def run(self, profile, inputs):
        for name, array in inputs.items():
            low, high = self.profiles[profile][name]
            assert all(a <= size <= b for a, size, b in zip(low, array.shape, high, strict=True)), array.shape
            assert array.flags.c_contiguous
        self.runs.append((profile, inputs["x"].shape[0]))
        return {"y": (inputs["x"] * 2).astype(np.float16)}


def model(*profiles, **options):
    engine = Fake(*profiles, **options)
    return TensorRtModel(Source(Path("m.plan"), gpu=0), lambda path, gpu: engine), engine


def rows(count, width=8):
    return np.arange(count * 3 * width, dtype=np.float32).reshape(count, 3, width)


def test_bindings_and_profiles_are_the_signature():
    found, _ = model(SMALL, LARGE, WIDE)
    assert found.signature.describe() == {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, -1], "batch_axis": 0}],
        "outputs": [{"name": "y", "datatype": "FP16", "shape": [-1, 3, -1], "batch_axis": 0}],
    }
    assert found.name == "tensorrt 10.14.1, GPU 0 (fake), profiles: 3"


def test_a_dimension_that_every_profile_fixes_is_of_that_length():
    found, _ = model(WIDE, {"x": ((1, 3, 32), (1, 3, 32))})
    assert found.signature.inputs[0].item_shape == (3, 32)
    fixed, _ = model({"x": ((4, 3, 8), (4, 3, 8))}, bindings=(X._replace(shape=(4, 3, 8)), Y))
    assert fixed.signature.batch == 4


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [(0, 1)]),
        (4, [(0, 4)]),
        (5, [(1, 5)]),
        (16, [(1, 16)]),
        (18, [(1, 16), (0, 2)]),
        (37, [(1, 16), (1, 16), (1, 5)]),
    ],
)
def test_a_batch_runs_on_the_profile_with_the_least_room_and_is_cut_where_none_has_enough(count, expected):
    found, engine = model(SMALL, LARGE)
    np.testing.assert_array_equal(found.infer({"x": rows(count)})["y"], rows(count).astype(np.float16) * 2)
    assert engine.runs == expected


def test_a_batch_that_is_too_small_is_filled_up_and_its_filling_dropped():
    found, engine = model(WIDE)
    np.testing.assert_array_equal(found.infer({"x": rows(1, 32)})["y"], rows(1, 32).astype(np.float16) * 2)
    assert engine.runs == [(0, 2)]


def test_a_gap_between_profiles_is_bridged():
    found, engine = model({"x": ((1, 3, 8), (2, 3, 8))}, {"x": ((8, 3, 8), (8, 3, 8))})
    np.testing.assert_array_equal(found.infer({"x": rows(5)})["y"], rows(5).astype(np.float16) * 2)
    assert engine.runs == [(0, 2), (0, 2), (0, 1)]


def test_the_other_dimensions_choose_the_profile_too():
    found, engine = model(SMALL, WIDE)
    found.infer({"x": rows(2, 32)})
    found.infer({"x": rows(2, 16)})
    assert engine.runs == [(1, 2), (0, 2)]


def test_an_item_that_no_profile_allows_is_refused_alone_with_the_ranges():
    found, _ = model(SMALL, WIDE)
    good = decode({"body": rows(1)[0].tolist()}, found.signature)
    found.check(good.arrays)
    bad = decode({"body": rows(1, 20)[0].tolist()}, found.signature)
    with pytest.raises(PredictionError) as caught:
        found.check(bad.arrays)
    assert caught.value.status == 400
    assert caught.value.message == (
        "Input 'x' has the shape [3, 20]: the engine was built for x: [3, 8..16]; or x: [3, 32]"
    )
    with pytest.raises(ValueError, match="the engine was built for"):
        found.infer(bad.arrays)


def test_several_requests_are_one_run_and_each_gets_its_own_rows():
    found, engine = model(SMALL)
    items = [decode({"body": (rows(1)[0] + at).tolist()}, found.signature) for at in range(3)]
    answers = run(found.infer, found.signature, items)
    for at, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["y"], ((rows(1) + at) * 2).astype(np.float16))
    assert engine.runs == [(0, 3)]


def test_warm_up_stays_within_the_profiles(tmp_path):
    found, engine = model(WIDE, SMALL)
    warm_up(found.infer, found.signature, True, directory=tmp_path, batch_size=8)
    assert engine.runs == [(0, 2), (0, 2), (0, 4), (0, 4)]  # of 1 (filled up), 2 and 8 rows


def test_chosen_takes_the_least_room():
    assert chosen(3, [(0, 1, 16), (1, 1, 4), (2, 4, 8)]) == (1, 3)


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        (Binding("size", True, "INT64", (2,), host=True), "wants size on the host, as a shape"),
        (Binding("y", False, "BF16", (-1, 3)), "y is BF16, which NumPy lacks"),
    ],
)
def test_an_engine_that_cannot_be_fed_says_so_at_load(binding, said):
    with pytest.raises(ValueError, match=said):
        model(SMALL, bindings=(X, Y, binding))


@pytest.mark.parametrize(
    ("logged", "said"),
    [
        (
            "6: The engine plan file is not compatible with this version of TensorRT, expecting library version "
            "10.14.1.48 got 8.6.1.6, please rebuild.",
            "was built by TensorRT 8.6.1.6, here is 10.14.1.48: build it anew, or pip install tensorrt==8.6.1.6",
        ),
        (
            "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead == "
            "serializationVersion failed.Version tag does not match. Note: Current Version: 239, Serialized Engine "
            "Version: 236)",
            "was built by another version of TensorRT (format 236, here is 239)",
        ),
        (
            "6: The engine plan file is generated on an incompatible device, expecting compute 8.6 got compute 7.5, "
            "please rebuild.",
            "was built on a GPU of compute capability 7.5, here is 8.6",
        ),
        ("magicTag mismatch", "is not an engine that TensorRT can load (magicTag mismatch)"),
    ],
)
def test_why_an_engine_is_refused_is_said_with_what_to_do(logged, said):
    def load(path, gpu):
        raise EngineRefused("something before", logged)

    with pytest.raises(ValueError, match=r"^m\.plan ") as caught:
        TensorRtModel(Source(Path("m.plan"), gpu=0), load)
    assert said in str(caught.value)


def test_a_refusal_without_a_word_is_one_too():
    assert refusal("m.plan", []) == "m.plan is not an engine that TensorRT can load (it does not say why)"


def test_a_worker_without_a_gpu_refuses_before_anything_is_imported():
    with pytest.raises(ValueError, match=r"m\.plan is an engine for a GPU, and this worker has none"):
        open_model(Source(Path("m.plan")))


def test_runs_that_differ_in_a_shared_output_are_an_error_and_not_the_first_ones_answer():
    class Sums(Fake):
        def run(self, profile, inputs):
            return {**super().run(profile, inputs), "sum": np.asarray(inputs["x"].sum(), np.float32)}

    engine = Sums(SMALL, bindings=(X, Y, Binding("sum", False, "FLOAT", ())))
    found = TensorRtModel(Source(Path("m.plan"), gpu=0), lambda path, gpu: engine)
    assert found.infer({"x": rows(4)})["sum"] == rows(4).sum()
    with pytest.raises(ValueError, match="set batchSize to 4"):
        found.infer({"x": rows(6)})
