"""Settings written back as a ``config.properties``, as snapshots hold them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserve.settings import Settings, all_options, load_settings
from mlserve.settings.properties import format_properties, parse_properties
from mlserve.settings.to_properties import to_properties

KEYED = [item for item in all_options() if item.torchserve and not item.secret]  # a secret stays where it was given
TRANSLATED = ("server.host", "server.inference_port", "server.management_host", "auth.tokens", "metrics.system")


def read(entries: dict[str, str], **sources) -> Settings:
    lines = [(key, value, number) for number, (key, value) in enumerate(entries.items(), 1)]
    return load_settings(config_file=Path("c.properties"), properties=lines, **sources)


def value(tree: Settings, key: str) -> object:
    section, name = key.split(".")
    return getattr(getattr(tree, section), name)


def check_same_again(tree: Settings) -> None:
    again = read(to_properties(tree))
    for key in (*(item.key for item in KEYED), *TRANSLATED, "tls.apis", "server.insecure"):
        assert value(again, key) == value(tree, key), key


FILE = {
    "inference_address": "https://0.0.0.0:9",
    "management_address": "unix:/tmp/m",
    "job_queue_size": "3",
    "enable_metrics_api": "no",
    "load_models": "a.mar,n=b.mar",
    "disable_token_authorization": "true",
    "enable_grpc_ssl": "true",
    "my_own": "kept",
    "io_ratio": "70",
}


def test_what_the_file_said_stays_as_it_was_written():
    written = to_properties(read(FILE))
    assert written == {**FILE, "enable_metrics_api": "no", "tsConfigFile": "c.properties"}
    check_same_again(read(FILE))


def test_flags_and_variables_are_written_over_the_file():
    tree = read(
        FILE,
        flags={"server.inference_port": "10", "models.store": "/m", "server.host": "::1", "models.load": "c.mar"},
        environ={"MLSERVE_METRICS_ENABLED": "true", "MLSERVE_AUTH_TOKENS": "true", "MLSERVE_METRICS_SYSTEM": "no"},
    )
    written = to_properties(tree)
    assert written["inference_address"] == "https://[::1]:10"
    assert written["model_store"] == "/m"
    assert written["load_models"] == "c.mar"
    assert written["enable_metrics_api"] == "true"
    assert written["disable_token_authorization"] == "false"
    assert written["disable_system_metrics"] == "true"
    assert "metrics_address" not in written


@pytest.mark.parametrize("item", KEYED, ids=lambda item: item.torchserve)
def test_every_key_comes_back_as_it_was(item):
    samples = {
        "bool": not item.default,
        "int": 7,
        "float": 7.5,
        "size": 7,
        "texts": ("x", "y"),
        "regexes": ("x.*",),
        "regex": "x.*",
    }
    sample = item.choices[-1] if item.choices else samples.get(item.kind, "some text")
    tree = read({}, flags={} if item.flag else None, environ=_environ(item, sample))
    assert value(tree, item.key) == sample
    check_same_again(tree)


def _environ(item, sample) -> dict[str, str]:
    return {item.env: ",".join(sample) if isinstance(sample, tuple) else str(sample).lower()}


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=30), max_size=5))
def test_any_text_survives_the_properties_syntax(values):
    values = {key: text.replace("$", "") for key, text in values.items()}
    text = format_properties(values, ["a comment"])
    assert text.isascii()
    assert {entry.key: entry.value for entry in parse_properties(text, {})} == values


def test_escapes_are_javas():
    text = format_properties({"a b": ' {\n "x": "http://h=1#!\\"}', "u": "\u00e9\U0001f600"})
    assert text == 'a\\ b=\\ {\\n "x"\\: "http\\://h\\=1\\#\\!\\\\"}\nu=\\u00E9\\uD83D\\uDE00\n'
