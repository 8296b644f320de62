"""The table of formats: what a file's name says, what is said when a package is missing, what the store serves bare."""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

import mlserve.handlers
from mlserve.archive.manifest import BUILT_IN
from mlserve.archive.modelfiles import SUFFIXES, is_model_file, manifest_for, manifest_for_folder
from mlserve.archive.plan import OTHER_NAMES, locate_handler
from mlserve.errors import ArchiveError

pytest.importorskip("numpy")

from mlserve.handlers import ALIASES
from mlserve.handlers.formats import FORMATS, Source, format_of, open_model

PACKAGES = {
    "onnx": "onnxruntime",
    "torch": "torch",
    "torchscript": "torch",
    "export": "torch",
    "aotinductor": "torch",
    "openvino": "openvino",
    "tensorflow": "tensorflow",
    "tensorrt": "tensorrt",
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
}
"""Runtime -> the package without which it cannot be."""
HANDLES = re.compile(r"^class \w*(Handler|Classifier|Segmenter|Detector|Preprocessing)\b", re.M)


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_missing_package_is_named_with_the_line_that_installs_it(name, tmp_path, monkeypatch):
    for module in [one for one in sys.modules if one.startswith("mlserve.handlers.formats.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "mlserve.handlers.loading", raising=False)
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    file = tmp_path / "m.bin"
    file.write_bytes(b"x")
    with pytest.raises(ImportError, match=rf"m\.bin needs the package {PACKAGES[name]}: pip install") as caught:
        open_model(name, Source(file, gpu=0))
    assert f"'mlserve[{FORMATS[name].extra}]'" in str(caught.value)


def test_every_format_is_asked_for_its_missing_package():
    assert set(PACKAGES) == set(FORMATS)


def test_every_format_has_its_extra():
    extras = importlib.metadata.metadata("mlserve").get_all("Provides-Extra") or []
    assert {one.extra for one in FORMATS.values()} <= set(extras)


def test_every_file_that_the_store_serves_bare_has_a_runtime(tmp_path):
    for suffix in SUFFIXES:
        assert format_of(tmp_path / f"m{suffix}") in FORMATS


def test_the_archiver_knows_every_name_of_a_built_in_handler_and_no_other():
    folder = Path(mlserve.handlers.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if HANDLES.search(path.read_text())}
    bases = {"vision", "text_handler"}  # classes that the handlers share
    assert (modules - bases) | set(ALIASES) == BUILT_IN | OTHER_NAMES
    for name in BUILT_IN | OTHER_NAMES:
        assert locate_handler(name) == (name, None)
    assert locate_handler("mlserve.handlers.auto") == ("mlserve.handlers.auto", None)


@pytest.mark.parametrize("name", ["modle", "items", "mlserve.handlers.items", "__init__"])
def test_a_handler_that_is_none_is_refused_with_the_names_of_all_that_are(name):
    with pytest.raises(ArchiveError, match="was not found") as caught:
        locate_handler(name)
    assert all(known in caught.value.message for known in BUILT_IN | OTHER_NAMES)


def test_an_unknown_file_is_refused_with_the_names_of_the_runtimes(tmp_path):
    with pytest.raises(ValueError, match=r"m\.doc is of no format .* set runtime: in model-config.yaml"):
        format_of(tmp_path / "m.doc")


@pytest.mark.parametrize(
    ("name", "text", "known"),
    [
        ("m.json", '{"learner":{"attributes":{}', True),
        ("m.json", '{"name": "x"}', False),
        ("m.txt", "tree\nversion=v4\n", True),
        ("m.txt", "a note", False),
        ("m.xml", '<?xml version="1.0"?>\n<net name="x">', True),
        ("m.xml", "<html>", False),
        ("m.onnx", "", True),
        ("m.doc", "", False),
    ],
)
def test_files_whose_suffix_says_little_are_known_by_how_they_begin(tmp_path, name, text, known):
    (tmp_path / name).write_text(text)
    assert is_model_file(tmp_path / name) is known


def test_a_file_gets_the_handler_of_its_kind_and_its_own_configuration(tmp_path):
    (tmp_path / "m.ubj").write_bytes(b"x")
    assert manifest_for(tmp_path / "m.ubj")["model"]["handler"] == "mlserve.handlers.tabular"
    (tmp_path / "model-config.yaml").write_text("")
    assert manifest_for(tmp_path / "m.ubj")["model"]["configFile"] == "model-config.yaml"
    (tmp_path / "m.yaml").write_text("")
    assert manifest_for(tmp_path / "m.ubj")["model"]["configFile"] == "m.yaml"


def test_a_folder_is_a_model_by_the_file_in_it(tmp_path):
    assert manifest_for_folder(tmp_path) is None
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    model = manifest_for_folder(tmp_path)["model"]
    assert model["serializedFile"] == "saved_model.pb"
    assert model["modelName"] == tmp_path.name
