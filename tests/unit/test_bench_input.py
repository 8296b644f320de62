"""What the command line of ``mlserve bench`` becomes: address, path, requests. Nothing is sent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mlserve.cli.bench_input import Asked, check_writable, target_of
from mlserve.cli.client import Access
from mlserve.errors import SettingError
from mlserve.load.grpc_messages import same_message
from mlserve.load.http_client import requests_of
from mlserve.load.target import METHODS, Target
from mlserve.rpc.generated import inference_pb2, open_inference_pb2

DEFAULT = "http://127.0.0.1:8080"
TENSOR = '{"inputs": [{"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [[0.5, 1.5]]}]}'


@pytest.fixture(autouse=True)
def _no_address_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLSERVE_INFERENCE_URL", raising=False)


def target(name: str, url: str = DEFAULT, access: Access | None = None, **fields: Any) -> Target:
    return target_of(Asked(name, url, **fields), access or Access())


@pytest.mark.parametrize(
    ("given", "address", "path", "method"),
    [
        ({"name": "cats"}, DEFAULT, "/predictions/cats", "POST"),
        ({"name": "a b/c", "version": "2.0"}, DEFAULT, "/predictions/a%20b%2Fc/2.0", "POST"),
        ({"name": "cats", "url": "http://h:1/behind"}, "http://h:1", "/behind/predictions/cats", "POST"),
        ({"name": "cats", "protocol": "v2"}, DEFAULT, "/v2/models/cats/infer", "POST"),
        ({"name": "http://h:1", "model": "cats"}, "http://h:1", "/predictions/cats", "POST"),
        ({"name": "http://h:1/", "model": "cats"}, "http://h:1", "/predictions/cats", "POST"),
        ({"name": "https://h/x?y=1"}, "https://h", "/x?y=1", "GET"),
        ({"name": "http://h/x", "data": ["1"]}, "http://h", "/x", "POST"),
        ({"name": "http://h", "method": "put"}, "http://h", "/", "PUT"),
        ({"name": "unix:/run/s", "model": "cats"}, "unix:/run/s", "/predictions/cats", "POST"),
        ({"name": "cats", "protocol": "grpc"}, "grpc://127.0.0.1:7070", METHODS["grpc"], "POST"),
        ({"name": "grpc://h:1", "model": "cats"}, "grpc://h:1", METHODS["grpc"], "POST"),
        (
            {"name": "grpcs://h:1", "model": "cats", "protocol": "grpc-v2", "data": [TENSOR]},
            "grpcs://h:1",
            METHODS["grpc-v2"],
            "POST",
        ),
    ],
)
def test_request_goes_elsewhere(given: dict[str, Any], address: str, path: str, method: str) -> None:
    found = target(**given)
    assert (found.address, found.path, found.method) == (address, path, method)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "cats", "model": "dogs"}, "--model is for an address"),
        ({"name": "http://h/x", "model": "cats"}, "has a path already"),
        ({"name": "http://h/x", "url": "http://other"}, "--url is the server of a model"),
        ({"name": "ftp://h/x"}, "is no URL of a server"),
        ({"name": "http://h:port/x"}, "is no URL"),
        ({"name": "http://me:secret@h/x"}, "Authorization"),
        ({"name": "grpc://h:1"}, "Name it with --model"),
        ({"name": "unix:/run/s"}, "Name it with --model"),
        ({"name": "unix:"}, "lacks the path"),
        ({"name": "http://h", "protocol": "v2"}, "Name it with --model"),
        ({"name": "http://h", "model": "m", "protocol": "grpc"}, "needs an address like grpc://"),
        ({"name": "cats", "url": "http://h:1", "protocol": "grpc"}, "needs --url grpc://"),
        ({"name": "grpc://h:1", "model": "m", "protocol": "v2"}, "speaks gRPC"),
        ({"name": "cats", "protocol": "soap"}, "none of rest, v2, grpc"),
        ({"name": "cats", "protocol": "grpc", "method": "GET"}, "are for HTTP"),
        ({"name": "cats", "data": ["{"]}, "not JSON"),
        ({"name": "cats", "inputs": ["/does/not/exist"]}, "--input: cannot read"),
        ({"name": "cats", "data": ["1", "2", "3"], "expect": [__file__, __file__]}, "2 answers for 3 inputs"),
        ({"name": "cats", "headers": ["nonsense"]}, "'Name: value'"),
        ({"name": "cats", "protocol": "grpc-v2", "data": ['{"a": 1}']}, "Open Inference Protocol is JSON like"),
        ({"name": "cats", "protocol": "grpc-v2", "data": [TENSOR.replace("FP32", "BF16")]}, "'BF16' has no field"),
    ],
)
def test_contradiction_is_settled_silently(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        target(**given)


def test_file_is_sent_as_another_type(tmp_path: Path) -> None:
    for name in ("a.json", "b.txt", "c.jpg", "d", "e.bin"):
        (tmp_path / name).write_bytes(name.encode())
    names = sorted(str(path) for path in tmp_path.iterdir())
    found = target("cats", inputs=names, data=["[1]"])
    assert [(payload.body, payload.content_type) for payload in found.payloads] == [
        (b"a.json", "application/json"),
        (b"b.txt", "text/plain"),
        (b"c.jpg", "image/jpeg"),
        (b"d", "application/octet-stream"),
        (b"e.bin", "application/octet-stream"),
        (b"[1]", "application/json"),
    ]
    assert {p.content_type for p in target("cats", inputs=names, content_type="x/y").payloads} == {"x/y"}


def test_answer_is_expected_of_the_wrong_input(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_text("one")
    two.write_text("two")
    each = target("cats", data=["1", "2"], expect=[str(one), str(two)])
    assert [payload.expect for payload in each.payloads] == [b"one", b"two"]
    same = target("cats", data=["1", "2"], expect=[str(one)])
    assert [payload.expect for payload in same.payloads] == [b"one", b"one"]


def test_token_is_not_sent_or_replaces_a_given_header() -> None:
    assert target("cats", access=Access("k")).headers == (("Authorization", "Bearer k"),)
    own = target("cats", access=Access("k"), headers=["authorization: Basic x"])
    assert own.headers == (("authorization", "Basic x"),)


def test_request_on_the_wire_is_not_http() -> None:
    (request,) = requests_of(target("cats", data=["[1]"], headers=["X-A: b: c"]))
    assert request == (
        b"POST /predictions/cats HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX-A: b: c\r\n"
        b"Content-Type: application/json\r\nContent-Length: 3\r\n\r\n[1]"
    )
    (plain,) = requests_of(target("http://h/x"))
    assert plain == b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize("header", ["Content-Length: 3", "connection: close", "X: a\r\nY: b"])
def test_header_can_split_or_break_requests(header: str) -> None:
    with pytest.raises(SettingError):
        requests_of(dataclasses.replace(target("cats"), headers=(tuple(header.split(": ", 1)),)))  # type: ignore[arg-type]


def test_grpc_message_says_something_else() -> None:
    (payload,) = target("cats", protocol="grpc", data=['"x"'], key="body", version="2").payloads
    request = inference_pb2.PredictionsRequest.FromString(payload.body)
    assert (request.model_name, request.model_version, dict(request.input)) == ("cats", "2", {"body": b'"x"'})
    (payload,) = target("cats", protocol="grpc-v2", data=[TENSOR]).payloads
    infer = open_inference_pb2.ModelInferRequest.FromString(payload.body)
    assert infer.model_name == "cats"
    (tensor,) = infer.inputs
    assert (tensor.name, list(tensor.shape), list(tensor.contents.fp32_contents)) == ("a", [1, 2], [0.5, 1.5])


def test_wrong_grpc_answer_passes() -> None:
    pieces = [inference_pb2.PredictionResponse(prediction=part).SerializeToString() for part in (b'{"a": ', b"1}")]
    assert same_message(pieces, b'{"a":1}\n', METHODS["grpc-stream"])
    assert not same_message(pieces, b'{"a":2}', METHODS["grpc-stream"])
    answer = open_inference_pb2.ModelInferResponse()
    answer.outputs.add(name="y", datatype="INT64", shape=[2]).contents.int64_contents.extend([1, 2])
    wire = [answer.SerializeToString()]
    right = b'{"outputs": [{"name": "y", "datatype": "INT64", "shape": [2], "data": [1, 2]}]}'
    assert same_message(wire, right, METHODS["grpc-v2"])
    assert not same_message(wire, right.replace(b"[1, 2]", b"[1, 3]"), METHODS["grpc-v2"])
    assert not same_message(wire, b"[]", METHODS["grpc-v2"])


@pytest.mark.parametrize("file", ["nowhere/out.json", ".", "there"])
def test_file_that_cannot_be_written_is_found_out_after_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    with pytest.raises(SettingError, match="--json: "):
        check_writable("--json", file)
    for fine in ("", "-", "new.json", "there/new.json"):
        check_writable("--json", fine)
