"""``import ts...`` means mlserve's names, and what is missing is taken from an installed torchserve or said."""

import importlib
import sys

import pytest
from support.ts_names import ts_names  # noqa: F401

pytestmark = pytest.mark.usefixtures("ts_names")

MODULES = [
    "ts",
    "ts.context",
    "ts.handler_utils.micro_batching",
    "ts.handler_utils.timer",
    "ts.handler_utils.utils",
    "ts.protocol.otf_message_handler",
    "ts.service",
    "ts.torch_handler.base_handler",
    "ts.torch_handler.image_classifier",
    "ts.torch_handler.image_segmenter",
    "ts.torch_handler.object_detector",
    "ts.torch_handler.request_envelope.json",
    "ts.torch_handler.text_classifier",
    "ts.torch_handler.unit_tests.test_utils.mock_context",
    "ts.torch_handler.vision_handler",
    "ts.utils.util",
    "ts.version",
]


@pytest.mark.parametrize("name", MODULES)
def test_a_name_is_one_module_by_either_path(name):
    module = importlib.import_module(name)
    assert module is importlib.import_module("mlserve.compat." + name)
    assert module.__spec__.name == "mlserve.compat." + name, "the module keeps its own spec"
    assert sys.modules[name] is module


def test_version_is_the_one_handlers_look_for():
    import ts
    from ts.version import __version__

    assert ts.__version__ == __version__ == "0.12.0"


def test_a_subclass_by_one_name_is_a_subclass_by_the_other():
    from ts.torch_handler.base_handler import BaseHandler
    from ts.torch_handler.image_classifier import ImageClassifier
    from ts.torch_handler.vision_handler import VisionHandler

    from mlserve.handlers import base, image_classifier

    assert issubclass(ImageClassifier, VisionHandler)
    assert issubclass(VisionHandler, BaseHandler)
    assert issubclass(BaseHandler, base.BaseHandler)
    assert issubclass(ImageClassifier, image_classifier.ImageClassifier)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A torchserve that has more than mlserve."""
    for name, text in {
        "ts/__init__.py": "__version__ = '0.0.1'",
        "ts/torch_handler/__init__.py": "",
        "ts/torch_handler/densenet.py": "from ts.utils.util import only_there\nfrom ..version import __version__",
        "ts/utils/__init__.py": "",
        "ts/utils/util.py": "only_there = 5\nget_yaml_config = 'theirs'",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


def test_what_is_missing_here_comes_from_an_installed_torchserve(installed):
    import ts
    from ts.torch_handler.densenet import __version__, only_there
    from ts.utils.util import get_yaml_config

    assert only_there == 5
    assert ts.__version__ == __version__ == "0.12.0", "its own imports find mlserve's modules"
    assert callable(get_yaml_config), "what mlserve has wins"


def test_a_pointer_on_the_path_does_not_hide_the_installed_one(installed, tmp_path, monkeypatch):
    (tmp_path / "first/ts").mkdir(parents=True)
    (tmp_path / "first/ts/__init__.py").write_text("raise AssertionError('a pointer')")
    monkeypatch.syspath_prepend(tmp_path / "first")
    assert importlib.import_module("ts.torch_handler.densenet").only_there == 5


def test_what_nobody_has_is_said():
    with pytest.raises(ImportError, match=r"ts\.nope.*no counterpart.*torchserve is not installed"):
        importlib.import_module("ts.nope")
    with pytest.raises(ImportError, match="cannot import name 'nope'"):
        exec("from ts.utils.util import nope")
    assert not hasattr(importlib.import_module("ts.utils.util"), "nope")


def test_what_an_installed_torchserve_lacks_too_is_said(installed):
    with pytest.raises(ImportError, match=r"ts\.nope.*installed beside it has none either"):
        importlib.import_module("ts.nope")


def test_a_module_ts_of_the_model_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "ts.py").write_text("series = [1, 2]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import ts

    assert ts.series == [1, 2]
    with pytest.raises(ImportError, match="not a package"):
        importlib.import_module("ts.context")
