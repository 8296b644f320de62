"""Labels: a class must never be lost or silently misnamed."""

import json

import pytest

from mlserve.handlers.labels import load_label_mapping, name_of, named


def test_values_may_be_names_or_lists_that_end_in_the_name():
    mapping = {"0": "cat", "1": ["n02085620", "dog"]}
    assert [name_of(index, mapping) for index in (0, 1)] == ["cat", "dog"]


def test_without_names_the_index_is_the_label():
    assert named([3, 1], [0.7, 0.3], None) == {"3": 0.7, "1": 0.3}


def test_a_class_without_a_name_is_an_error_not_a_guess():
    with pytest.raises(KeyError, match="none for class 7"):
        name_of(7, {"0": "cat"})


def test_two_classes_of_one_name_are_both_kept_in_order():
    row = named([134, 517, 2], [0.5, 0.4, 0.1], {"134": "crane", "517": "crane", "2": "shark"})
    assert list(row.items()) == [("crane", 0.5), ("crane (517)", 0.4), ("shark", 0.1)]


def test_a_missing_file_means_no_names(tmp_path):
    assert load_label_mapping(tmp_path / "index_to_name.json") is None


@pytest.mark.parametrize("text", ["{", "[1, 2]", '"cat"'])
def test_a_broken_file_is_named(tmp_path, text):
    path = tmp_path / "index_to_name.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"index_to_name\.json: "):
        load_label_mapping(path)


def test_a_good_file_is_read_as_utf8(tmp_path):
    path = tmp_path / "index_to_name.json"
    path.write_text(json.dumps({"0": "Kätzchen"}, ensure_ascii=False), encoding="utf-8")
    assert load_label_mapping(path) == {"0": "Kätzchen"}
