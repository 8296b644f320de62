"""Parameters as TorchServe's scripts send them: what its parser takes, and what it makes of numbers without sense."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserve.errors import InvalidInput, ModelNotFound
from mlserve.protocols import lenient_json
from mlserve.protocols import management as codec
from mlserve.protocols.errors import JavaFailure, describe_error

JSON = "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"{'url': 'a.mar'}", {"url": "a.mar"}),
        (b"{url: a.mar; n = 3, b => true,}".replace(b",}", b"}"), {"url": "a.mar", "n": 3, "b": True}),
        (b'{"a": [1, 2; 3], /* x */ "b": {}} // end', {"a": [1, 2, 3], "b": {}}),
        (b"# comment\n{'q': 'it\\'s \\u0041\\n'}", {"q": "it's A\n"}),
        (b"{a: 1.5e2, b: -7, c: NULL, d: 007x}", {"a": 150.0, "b": -7, "c": None, "d": "007x"}),
    ],
)
def test_text_that_torchserve_reads_is_not_read(text: bytes, value: Any) -> None:
    assert lenient_json.loads(text) == value


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"url": ', b"{'a", b'{"a"}', b"{a:1,}", b"{,}", b"[1", b"1 2", b"{a:1}}", b"\\", b"[" * 100]
)
def test_text_without_sense_is_read(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"offset|nesting"):
        lenient_json.loads(text)


@given(st.binary(max_size=60))
def test_strange_text_ends_in_another_error(text: bytes) -> None:
    with contextlib.suppress(ValueError):
        lenient_json.loads(text)


def read(body: bytes) -> dict[str, Any]:
    return codec.read_parameters({}, JSON, body, lenient=True)


def test_numbers_and_texts_are_not_converted() -> None:
    given = read(b"{'url':'noop.mar','model_name':7,'batch_size':'3','synchronous':'false','handler':null}")
    assert given == {"url": "noop.mar", "model_name": "7", "batch_size": "3", "synchronous": "false"}
    call = codec.parse_register(given, lenient=True)
    assert (call.overrides, call.synchronous) == ({"model_name": "7", "batch_size": 3}, False)


@pytest.mark.parametrize(
    "body",
    [b'{"url": ', b"[1]", b"7", b'{"url":"a.mar","batch_size":"x"}', b'{"batch_size":true}', b'{"url":{}}', b"{'a'"],
)
def test_malformed_body_is_blamed_on_the_client(body: bytes) -> None:
    with pytest.raises(JavaFailure) as caught:
        read(body)
    assert describe_error(caught.value)[:2] == (500, "JsonSyntaxException")


@pytest.mark.parametrize(
    ("given", "overrides"),
    [
        ({"batch_size": "-1", "max_batch_delay": "-100"}, {}),
        ({"batch_size": "0", "response_timeout": "-1", "startup_timeout": "-5"}, {}),
        ({"batch_size": "x", "max_batch_delay": "1e3"}, {}),
        ({"startup_timeout": "0", "response_timeout": "0"}, {"startup_timeout": 0, "response_timeout": 0}),
        ({"s3_sse_kms": "true", "runtime": "LSP"}, {"s3_sse_kms": True, "runtime": "LSP"}),
    ],
)
def test_senseless_number_is_an_error(given: dict[str, str], overrides: dict[str, Any]) -> None:
    assert codec.parse_register({"url": "a.mar", **given}, lenient=True).overrides == overrides


def test_runtime_is_looked_at_after_the_url() -> None:
    with pytest.raises(InvalidInput, match=r"^Invalid RuntimeType value: python4$"):
        codec.parse_register({"url": "", "runtime": "python4"}, lenient=True)
    with pytest.raises(ModelNotFound, match=r"^empty url$"):
        codec.parse_register({"url": ""}, lenient=True)


@pytest.mark.parametrize(
    ("given", "workers"),
    [({"min_worker": "-1", "max_worker": "3"}, (0, 3)), ({"min_worker": "x"}, (1, 1)), ({"min_worker": "0"}, (0, 0))],
)
def test_scale_is_refused(given: dict[str, str], workers: tuple[int, int]) -> None:
    call = codec.parse_scale(given, lenient=True)
    assert (call.min_workers, call.max_workers) == workers


@pytest.mark.parametrize("given", [{"min_worker": "-1"}, {"min_worker": -2, "max_worker": -1}])
def test_negative_workers_are_not_javas_failure(given: dict[str, Any]) -> None:
    with pytest.raises(JavaFailure, match=r"^Index -\d out of bounds") as caught:
        codec.parse_scale(given, lenient=True)
    assert describe_error(caught.value)[:2] == (500, "IndexOutOfBoundsException")


@pytest.mark.parametrize("given", [{"max_worker": "-1"}, {"min_worker": "3", "max_worker": "2"}])
def test_fewer_than_the_least_workers_are_taken(given: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=r"^max_worker cannot be less than min_worker\.$"):
        codec.parse_scale(given, lenient=True)
