"""EfficientNet-Lite0 with its ImageNet weights in every format that holds a torch model: one photo, one answer.

Tolerances on logits of up to 13: 1e-3 in float32 (the exported graphs fuse and reorder), 0.3 in bfloat16.
"""

import io
import json
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from mlserve.handlers.auto import complete, servable
from mlserve.handlers.formats import Source, open_model
from tests.support.asking import largest_batch
from tests.support.server import launched, wait_ready

ROOT = Path(__file__).resolve().parents[2]
SHAPES = "inputs: {x: {dtype: float32, shape: [-1, 3, 224, 224]}}\n"
EAGER = {
    "eager": SHAPES,
    "safetensors": SHAPES,
    "compiled": SHAPES + "pt2: {backend: inductor, dynamic: true}\nwarmup: {sizes: [1, 2]}\nstartupTimeout: 1200\n",
    "channelslast": SHAPES + "torch: {channels_last: true}\n",
    "bfloat16": SHAPES + "torch: {dtype: bfloat16}\n",
    "autocast": SHAPES + "torch: {autocast: bfloat16}\n",
}
EXPORTED = {"onnx": "net.onnx", "pt2": "net.pt2", "torchscript": "net.pt", "openvino": "net.xml"}
MODELS = (*EAGER, *EXPORTED, "aotinductor")
COARSE = ("bfloat16", "autocast")


def cli(folder, *arguments):
    line = [sys.executable, "-m", "mlserve", *arguments]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run([sys.executable, ROOT / "scripts" / "demo_model.py", folder], check=True, timeout=600)
    return folder


@pytest.fixture(scope="module")
def pixels(demo):
    """Two photos, normalised: [2, 3, 224, 224]."""
    from PIL import Image

    found = []
    for name in ("cat", "coffee"):
        image = Image.open(demo / "photos" / f"{name}.jpg").convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        found.append((np.asarray(image, np.float32).transpose(2, 0, 1) / 255 - 0.498) / 0.502)
    return np.stack(found)


@pytest.fixture(scope="module")
def module(demo):
    names = {}
    exec((demo / "efficientnet_lite0.py").read_text(), names)
    network = next(
        value for value in names.values() if isinstance(value, type) and issubclass(value, torch.nn.Module)
    )()
    network.load_state_dict(torch.load(demo / "weights.pth", weights_only=True))
    return network.eval()


@pytest.fixture(scope="module")
def logits(module, pixels):
    with torch.inference_mode():
        return module(torch.from_numpy(pixels)).numpy()


@pytest.fixture(scope="module")
def files(demo, module, pixels, tmp_path_factory):
    """A folder for each eager way to serve it, and one with every exported file."""
    root, made = tmp_path_factory.mktemp("models"), {}
    for name, config in EAGER.items():
        folder = root / name
        folder.mkdir()
        shutil.copyfile(demo / "efficientnet_lite0.py", folder / "model.py")
        if name == "safetensors":
            from safetensors.torch import save_file

            save_file(module.state_dict(), folder / "net.safetensors")
        else:
            shutil.copyfile(demo / "weights.pth", folder / "net.pth")
        (folder / "net.yaml").write_text(config)
        made[name] = folder / ("net.safetensors" if name == "safetensors" else "net.pth")
    np.save(root / "sample.npy", pixels[0])
    for to, file in EXPORTED.items():
        (root / to).mkdir()
        cli(root, "export", str(made["eager"]), "--to", to, "--sample", "sample.npy", "-o", f"{to}/{file}")
        made[to] = root / to / file
    (root / "torchscript" / "net.yaml").write_text(SHAPES)  # which a TorchScript file does not say
    made["aotinductor"] = compiled(root, module)
    return made


def compiled(root, module):
    rows = torch.export.Dim("rows", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler warns about its own code
        program = torch.export.export(module, (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: rows},))
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(root / "aot.pt2"))
    (root / "aot.yaml").write_text("inputs: {input: {dtype: float32, shape: [-1, 3, 224, 224]}}\n")
    return Path(path)


@pytest.fixture(scope="module")
def server(files, tmp_path_factory):
    models = [f"{name}={path}" for name, path in files.items()]
    with launched(tmp_path_factory.mktemp("server"), *models, settings={"DEFAULTS_BATCH_SIZE": 4}) as live:
        wait_ready(live, seconds=1200)  # the compiler takes a minute on two cores
        yield live
        for cache in live.temp.glob("torchinductor_*"):  # torch's own, which it leaves for the next process
            shutil.rmtree(cache)
        assert live.stop() == 0


@pytest.mark.parametrize("name", MODELS)
def test_every_format_gives_the_same_five_classes(server, pixels, logits, name):
    body = io.BytesIO()
    np.save(body, pixels)  # two rows in one request
    reply = server.predict(name, body.getvalue(), content_type="application/x-npy")
    assert reply.status == 200, reply
    [answer] = reply.json().values()
    found = np.asarray(answer)
    assert found.shape == logits.shape
    assert np.abs(found - logits).max() < (0.3 if name in COARSE else 1e-3)
    for ours, theirs in zip(found, logits, strict=True):
        if name in COARSE:  # neighbours in rank may change places
            assert np.argmax(ours) == np.argmax(theirs)
        else:
            assert np.argsort(ours)[-5:].tolist() == np.argsort(theirs)[-5:].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_an_item_alone_is_answered_as_in_company(server, pixels, logits, name):
    signature = server.describe(name)["signature"]
    [tensor] = signature["inputs"]
    body = {tensor["name"]: pixels[0].tolist()}
    reply = server.predict(name, json.dumps(body).encode(), content_type="application/json")
    assert reply.status == 200, reply
    [answer] = reply.json().values()
    assert np.abs(np.asarray(answer) - logits[0]).max() < (0.3 if name in COARSE else 1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_requests_that_come_together_are_one_batch_and_each_gets_its_own_answer(server, pixels, logits, name):
    def ask(row):
        body = io.BytesIO()
        np.save(body, pixels[row])
        reply = server.predict(name, body.getvalue(), content_type="application/x-npy")
        assert reply.status == 200, reply
        [answer] = reply.json().values()
        return np.asarray(answer)

    rows = [0, 1] * 4
    with ThreadPoolExecutor(len(rows)) as threads:
        answers = list(threads.map(ask, rows))
    for row, answer in zip(rows, answers, strict=True):
        assert np.abs(answer - logits[row]).max() < (0.3 if name in COARSE else 1e-3)
    assert largest_batch(server, name) > 1


def test_a_package_that_would_read_beyond_its_input_is_not_loaded_without_shapes(files):
    model = open_model("aotinductor", Source(files["aotinductor"]))
    with pytest.raises(ValueError, match=r"reads beyond .* inputs: \{input: \{dtype: float32"):
        servable(model.signature, model)
    declared = {"inputs": {"input": {"dtype": "float32", "shape": [-1, 3, 224, 224]}}}
    assert servable(complete(model.signature, declared), model).takes() == "the model takes input: FP32 [3, 224, 224]"


def test_no_request_pays_for_the_compiler(server):
    assert "warmed up in" in server.log_text()
    log = server.log_text()
    assert log.index("warmed up in") < log.index("model compiled is ready")
