"""The section ``torch`` and ``pt2``: a key does what it says or is refused by its name. Nothing is compiled in C++."""

import json
import math
import warnings

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

from mlserve.handlers import auto, batches, items  # noqa: E402
from mlserve.handlers.formats import open_model, source_of  # noqa: E402
from mlserve.handlers.warmup import warm_up  # noqa: E402

CODE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 1, bias=False)
        torch.nn.init.constant_(self.conv.weight, 1 / 3)
        self.seen = None

    def forward(self, x):
        self.seen = (x.dtype, x.is_contiguous(memory_format=torch.channels_last))
        return self.conv(x).sum(dim=(2, 3))
"""
SHAPES = {"inputs": {"x": {"dtype": "float32", "shape": [-1, 2, 4, 4]}}}


class Widened(torch.nn.Module):
    def forward(self, x):
        return x * 3, (x > 0).any(dim=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    names = {}
    exec(CODE, names)  # the very text that is written beside the weights
    network = names["Net"]().eval()
    torch.save(network.state_dict(), folder / "net.pth")
    (folder / "model.py").write_text(CODE)
    rows = torch.export.Dim("rows", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(folder / "net.pt"))
        program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(2, 2),), dynamic_shapes=({0: rows},))
        torch.export.save(program, folder / "net.pt2")
        wide = (torch.zeros(2, 3, dtype=torch.bfloat16),)
        torch.export.save(torch.export.export(Widened(), wide, dynamic_shapes=({0: rows},)), folder / "wide.pt2")
    return folder


def opened(files, file="net.pth", **config):
    code = files / "model.py" if file == "net.pth" else None
    model = open_model(*source_of(files / file, config, code=code))
    model.signature = auto.servable(auto.complete(model.signature, config), model)
    return model


def answered(model, *bodies):
    given = [items.decode({"body": json.dumps(one).encode()}, model.signature) for one in bodies]
    outputs = batches.run(model.infer, model.signature, given)
    return [
        json.loads(items.encode(arrays, one, model.signature).body) for arrays, one in zip(outputs, given, strict=True)
    ]


@pytest.mark.parametrize(
    ("section", "dtype", "channels_last"),
    [
        ({}, torch.float32, False),
        ({"dtype": "bfloat16"}, torch.bfloat16, False),
        ({"dtype": "float16"}, torch.float16, False),
        ({"dtype": "half"}, torch.float16, False),
        ({"autocast": "bfloat16"}, torch.float32, False),
        ({"channels_last": True}, torch.float32, True),
    ],
    ids=str,
)
def test_precision_and_memory_format_reach_the_model(files, section, dtype, channels_last):
    model = opened(files, torch=section, **SHAPES)
    x = np.ones((2, 2, 4, 4), np.float32)
    found = model.infer({"x": x})["output"].astype(np.float64)
    assert model.call.seen == (dtype, channels_last)
    exact = 16 * 2 * float(np.float32(1 / 3))
    assert np.abs(found - exact).max() < 0.1
    coarse = dtype is not torch.float32 or "autocast" in section
    assert bool(np.abs(found - exact).max() > 1e-4) is coarse  # autocast computes in its own precision


@pytest.mark.parametrize(
    ("file", "config", "said"),
    [
        (
            "net.pth",
            {"torch": {"chanels_last": True}},
            "torch: chanels_last in model-config.yaml is unknown; known are",
        ),
        ("net.pth", {"torch": {"channels_last": "yes"}}, "channels_last in model-config.yaml must be true or false"),
        ("net.pth", {"torch": {"dtype": "int8"}}, "dtype in model-config.yaml must be one of float16"),
        ("net.pth", {"torch": {"dtype": "float16", "autocast": "float16"}}, "dtype and autocast"),
        ("net.pth", {"torch": "bfloat16"}, "torch in model-config.yaml must be a mapping"),
        ("net.pth", {"torch": {"cuda_graphs": True}}, "cuda_graphs in model-config.yaml needs a GPU"),
        ("net.pt2", {"torch": {"dtype": "float16"}}, "dtype in model-config.yaml does nothing for torch.export"),
        ("net.pt", {"torch": {"model_class": "Net"}}, "model_class in model-config.yaml does nothing for TorchScript"),
        ("net.pt", {"pt2": "eager"}, "torch.compile takes no TorchScript model"),
        ("net.pth", {"pt2": {"backend": "eager", "modus": "x"}}, "pt2 in model-config.yaml: unknown modus"),
        ("net.pth", {"pt2": {"mode": "fastest"}}, "fastest"),
        ("net.pth", {"pt2": "nope"}, "pt2 in model-config.yaml: .*nope"),
        ("net.pth", {"pt2": 3}, "pt2 in model-config.yaml must be a backend name or a mapping"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_right_is_refused_by_its_name(files, file, config, said):
    with pytest.raises(ValueError, match=said):
        opened(files, file, **config)


@pytest.mark.parametrize("file", ["net.pth", "net.pt2"])
@pytest.mark.parametrize("pt2", [{"backend": "eager"}, {"backend": "eager", "dynamic": False}], ids=str)
def test_after_warm_up_no_batch_size_is_compiled_any_more(files, file, pt2):
    torch._dynamo.reset()
    stats = torch._dynamo.utils.counters["stats"]
    before = stats["unique_graphs"]
    with torch._dynamo.config.patch(recompile_limit=3):  # which fewer programs than batch sizes would reach
        model = opened(files, file, pt2=pt2, **(SHAPES if file == "net.pth" else {}))
        assert ", compiled, cpu" in model.name
        assert auto.warm_up_wanted(model, {}) is True
        warm_up(model.warm, model.signature, True, directory=files, batch_size=6, sizes=model.warm_sizes(6))
        compiled = stats["unique_graphs"]
        assert compiled - before == (6 if pt2.get("dynamic") is False else 2)
        [tensor] = model.signature.inputs
        for rows in range(1, 7):
            model.infer({tensor.name: np.zeros((rows, *tensor.item_shape), np.float32)})
        assert stats["unique_graphs"] == compiled
    torch._dynamo.reset()


def test_a_section_that_says_not_to_compile_is_kept_to(files):
    model = opened(files, pt2={"compile": {"enable": False, "backend": "eager"}})
    assert "compiled" not in model.name
    assert not model.wants_warm_up


def test_bfloat16_is_taken_as_numbers_and_answered_as_float32(files):
    model = opened(files, "wide.pt2")
    described = model.signature.describe()
    assert [one["datatype"] for one in (*described["inputs"], *described["outputs"])] == ["BF16", "FP32", "BOOL"]
    name = model.signature.inputs[0].name
    expected = (torch.tensor([1.1, -2, 3]).bfloat16() * 3).float().tolist()
    for body in ({name: [1.1, -2, 3]}, [1.1, -2, 3]):
        [answer] = answered(model, body)
        assert answer == {"output_0": pytest.approx(expected, abs=0), "output_1": True}
    for datatype in ("BF16", "FP32"):
        [answer] = answered(
            model, {"inputs": [{"name": name, "shape": [3], "datatype": datatype, "data": [1.1, -2, 3]}]}
        )
        assert answer["outputs"][0]["datatype"] == "FP32"
        assert answer["outputs"][0]["data"] == pytest.approx(expected, abs=0)


def test_what_json_cannot_hold_is_null_and_keeps_its_place(files):
    model = opened(files, "wide.pt2")
    name = model.signature.inputs[0].name
    array = np.array([math.nan, math.inf, 1], np.float32)
    item = items.Item({name: array[None]}, 1)
    [outputs] = batches.run(model.infer, model.signature, [item])
    assert json.loads(items.encode(outputs, item, model.signature).body)["output_0"] == [None, None, 3]
    shared = items.encode({"y": np.asarray(math.nan, np.float32)}, item, model.signature._replace(outputs=()))
    assert b"NaN" not in shared.body
