"""A real pretrained model on real photos: through the handlers in this process, and through ``scripts/demo``."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlserve.handler import Context, PredictionError, RequestInfo
from mlserve.handlers.base import BaseHandler
from mlserve.handlers.image_classifier import ImageClassifier

ROOT = Path(__file__).resolve().parents[2]
CATS = {"tabby, tabby cat", "tiger cat", "Egyptian cat"}
MANIFEST = {"model": {"modelFile": "efficientnet_lite0.py", "serializedFile": "weights.pth"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder that ``scripts/demo_model.py`` writes."""
    folder = tmp_path_factory.mktemp("demo") / "model"
    subprocess.run([sys.executable, ROOT / "scripts" / "demo_model.py", folder], check=True, timeout=120)
    return folder


def context_of(model, items=1):
    config = yaml.safe_load((model / "model-config.yaml").read_text())
    context = Context("efficientnet", str(model), MANIFEST, model_yaml_config=config)
    context.begin([RequestInfo(str(index)) for index in range(items)])
    return context


@pytest.fixture(scope="module")
def classifier(model):
    handler = ImageClassifier()
    handler.initialize(context_of(model))
    return handler


@pytest.fixture(scope="module")
def photos(model):
    return {path.stem: bytearray(path.read_bytes()) for path in (model / "photos").glob("*.jpg")}


def best(answer):
    return max(answer, key=answer.get)


def test_every_photo_gets_its_right_class(classifier, photos, model):
    for name, expected in {"cat": CATS, "coffee": {"espresso"}, "rocket": {"missile", "projectile, missile"}}.items():
        [answer] = classifier.handle([{"body": photos[name]}], context_of(model))
        assert best(answer) in expected, (name, answer)
        assert len(answer) == 5
        assert list(answer.values()) == sorted(answer.values(), reverse=True)
        assert 0 < sum(answer.values()) <= 1.0001


def test_a_broken_jpeg_between_two_good_ones_fails_alone(classifier, photos, model):
    rows = [{"body": photos["cat"]}, {"body": photos["cat"][:5000]}, {"data": photos["coffee"]}]
    cat, broken, coffee = classifier.handle(rows, context_of(model, 3))
    assert best(cat) in CATS
    assert best(coffee) == "espresso"
    assert isinstance(broken, PredictionError)
    assert broken.status == 400
    assert "damaged" in broken.message


def test_a_batch_answers_as_its_items_do_alone(classifier, photos, model):
    names = ["cat", "coffee", "rocket", "astronaut", "cat"]
    rows = [{"body": photos[name]} for name in names]
    together = classifier.handle(rows, context_of(model, len(rows)))
    for row, answer in zip(rows, together, strict=True):
        [alone] = classifier.handle([row], context_of(model))
        assert answer == pytest.approx(alone, rel=1e-3)


def test_base64_text_and_a_tensor_are_the_same_as_the_file(classifier, photos, model):
    tensor = classifier.preprocess([{"body": photos["cat"]}])[0].tolist()
    rows = [{"body": photos["cat"]}, {"data": base64.b64encode(photos["cat"]).decode()}, {"body": tensor}]
    first, *others = classifier.handle(rows, context_of(model, 3))
    assert all(other == pytest.approx(first, rel=1e-3) for other in others)


def test_the_base_handler_gives_the_logits_of_a_tensor(classifier, photos, model):
    handler = BaseHandler()
    handler.initialize(context_of(model))
    tensor = classifier.preprocess([{"body": photos["cat"]}])[0].tolist()
    [logits] = handler.handle([{"body": tensor}], context_of(model))
    assert len(logits) == 1000
    assert classifier.mapping[str(logits.index(max(logits)))] in CATS


def test_the_network_is_the_one_its_weights_were_trained_in(classifier, photos):
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    published = EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict(classifier.model.state_dict())
    batch = classifier.preprocess([{"body": photos["cat"]}, {"body": photos["rocket"]}])
    with torch.inference_mode():
        assert torch.allclose(published.eval()(batch), classifier.model(batch), atol=1e-4)


def test_phases_of_a_real_batch_add_up_to_its_time(classifier, photos, model):
    context = context_of(model)
    classifier.handle([{"body": photos["cat"]}], context)
    phases = context.phases
    assert phases.inference > phases.postprocess > 0
    assert phases.preprocess > 0


def test_the_demo_answers_right_and_leaves_no_server(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "DEMO_HERE": "1", "DEMO_DIR": str(tmp_path)}
    done = subprocess.run([ROOT / "scripts" / "demo"], capture_output=True, text=True, timeout=180, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Right: the photo shows a cat" in done.stdout
    assert "$ mlserve archive --model-name efficientnet" in done.stdout
    assert not (tmp_path / "server.pid").exists()
    # Its command line names the folder, and so would that of any process left behind.
    left = [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(entry)]
    assert left == []


def _read(path):
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
