"""``mlserve init``: what it writes is complete, and it never overwrites somebody's work unasked."""

import ast
import os
import re

import pytest
import yaml

from mlserve.archive.spec import OPTIONS
from mlserve.cli.init import Kind, scaffold
from mlserve.errors import InvalidInput
from mlserve.handlers.image_classifier import ImageClassifier
from mlserve.handlers.vision import ImageTransform
from mlserve.settings import Settings

KINDS = list(Kind)


@pytest.mark.parametrize("kind", KINDS)
def test_no_placeholder_is_left_in_a_scaffold(tmp_path, kind):
    for path in scaffold("my-model", kind, tmp_path / "m"):
        text = path.read_text()
        if path.name == "pack.sh":
            assert set(re.findall(r"\$\{?(\w+)", text)) == {"0", "1", "version"}
        else:
            assert "$" not in text
        if path.suffix == ".py":
            ast.parse(text)


def test_every_commented_key_is_valid_yaml_once_the_comment_is_taken_away(tmp_path):
    scaffold("m", Kind.IMAGE, tmp_path)
    text = (tmp_path / "model-config.yaml").read_text()
    assert yaml.safe_load(text) is None, "as scaffolded, every value is the default"
    keys = "\n".join(line[2:] for line in text.splitlines() if re.match(r"# +\w+:( |$)", line))
    config = yaml.safe_load(keys)
    assert config.pop("image") == {
        key: list(value) if isinstance(value, tuple) else value for key, value in vars(ImageTransform()).items()
    }
    assert config.pop("handler") == {"topk": ImageClassifier.topk}
    defaults = Settings().defaults
    for field, option in OPTIONS.items():
        if not option.key:
            continue  # not for model-config.yaml
        shown = config.pop(option.key)
        assert option.fits(shown)
        if hasattr(defaults, field):
            assert shown == getattr(defaults, field)
    assert config == {}, "keys that no server reads"


def test_the_pack_script_is_executable_and_names_the_model_files(tmp_path):
    scaffold("m", Kind.IMAGE, tmp_path)
    assert os.access(tmp_path / "pack.sh", os.X_OK)
    assert "--model-file model.py --extra-files index_to_name.json --config-file" in (tmp_path / "pack.sh").read_text()


def test_an_existing_file_is_named_and_nothing_is_written_beside_it(tmp_path):
    (tmp_path / "handler.py").write_text("mine")
    with pytest.raises(FileExistsError, match=r"handler\.py exists already; --force"):
        scaffold("m", Kind.CUSTOM, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["handler.py"]
    assert (tmp_path / "handler.py").read_text() == "mine"
    scaffold("m", Kind.CUSTOM, tmp_path, force=True)
    assert "class Handler" in (tmp_path / "handler.py").read_text()


def test_a_name_that_no_model_can_have_writes_nothing(tmp_path):
    with pytest.raises(InvalidInput, match="not allowed"):
        scaffold("../evil", Kind.CUSTOM, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_target_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "m").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        scaffold("m", Kind.CUSTOM, tmp_path / "m")
