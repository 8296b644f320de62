from dataclasses import fields
from pathlib import Path

from mlserve.core.model import ModelSpec
from mlserve.settings import all_options, model_options
from mlserve.settings.reference import reference
from mlserve.settings.torchserve import ADDRESSES, IGNORED
from mlserve.settings.torchserve_models import MODEL_KEYS
from mlserve.settings.values import convert, written

ROOT = Path(__file__).resolve().parents[2]


def test_reference_page_matches_the_tree():
    assert (ROOT / "docs/settings.md").read_text() == reference(), "run: mlserve config reference > docs/settings.md"


def test_every_default_is_a_value_that_its_own_checks_accept():
    for item in [*all_options(), *model_options().values()]:
        assert convert(item, item.default if item.default is not None else "auto") == item.default, item.key


def test_what_config_show_prints_can_be_given_back():
    for item in all_options():
        if item.kind != "texts" or item.default:
            assert convert(item, written(item.default)) == item.default, item.key


def test_no_two_settings_share_a_name_in_any_source():
    for names in (
        [item.key for item in all_options()],
        [item.env for item in all_options()],
        [item.flag for item in all_options() if item.flag],
        [item.torchserve for item in all_options() if item.torchserve],
    ):
        assert len(names) == len(set(names))


def test_key_that_has_a_field_is_not_listed_as_ignored():
    assert not {item.torchserve for item in all_options()} & {*IGNORED, *ADDRESSES}


def test_model_overrides_are_fields_of_a_model_specification():
    known = {field.name for field in fields(ModelSpec)}
    assert set(model_options()) <= known
    assert set(MODEL_KEYS.values()) <= set(model_options())
