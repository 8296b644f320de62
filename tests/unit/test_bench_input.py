"""What the command line of ``mlserve bench`` becomes: address, path, requests. Nothing is sent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mlserve.cli.app import run
from mlserve.cli.bench_input import Asked, check_writable, target_of
from mlserve.cli.client import Access
from mlserve.errors import SettingError
from mlserve.load.grpc_client import metadata_of
from mlserve.load.grpc_messages import same_message
from mlserve.load.http_client import requests_of
from mlserve.load.target import METHODS, Target
from mlserve.rpc.generated import inference_pb2, open_inference_pb2

DEFAULT = "http://127.0.0.1:8080"
TENSOR = '{"inputs": [{"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [[0.5, 1.5]]}]}'


@pytest.fixture(autouse=True)
def _no_address_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INFERENCE_URL", "MANAGEMENT_URL", "CACERT", "TOKEN"):
        monkeypatch.delenv(f"MLSERVE_{name}", raising=False)


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
        ({"name": "http://h/x", "access": Access(named=frozenset({"--url"}))}, "--url is the server of a model"),
        ({"name": "http://h/x", "method": "G ET"}, "no method of HTTP"),
        ({"name": "cats", "key": "body"}, "--input-key is for --protocol grpc and grpc-stream"),
        ({"name": "http://h/x", "key": "body"}, "--input-key is for"),
        ({"name": "cats", "protocol": "grpc-v2", "data": [TENSOR], "key": "body"}, "--input-key is for"),
        ({"name": "cats", "content_type": "a/b", "headers": ["Content-type: c/d"]}, "content-type that --content-type"),
        (
            {
                "name": "cats",
                "access": Access("k", named=frozenset({"--token"})),
                "headers": ["authorization: Basic x"],
            },
            "authorization that --token",
        ),
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


@pytest.mark.parametrize("option", ["--cacert", "--insecure"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "http://h/x"}, r"http://h is not encrypted, .*; is it https://h\?"),
        ({"name": "cats"}, r"http://127.0.0.1:8080 is not encrypted"),
        ({"name": "cats", "protocol": "grpc"}, r"grpc://127.0.0.1:7070 is not encrypted, .*; is it grpcs:"),
        (
            {"name": "unix:/run/s", "model": "cats"},
            r"unix:/run/s is not encrypted, so there is no certificate[^;]*$",
        ),
    ],
)
def test_certificates_are_named_to_no_avail(given: dict[str, Any], words: str, option: str) -> None:
    with pytest.raises(SettingError, match=f"^{option}: {words}"):
        target(**given, access=Access(named=frozenset({option})))
    from_the_environment = Access(cacert="ca.pem")
    assert target(**given, access=from_the_environment).cacert == "ca.pem"
    assert target("https://h", access=Access(named=frozenset({option})))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["bench", "http://127.0.0.1:1/x", "--cacert", "ca.pem"], "--cacert: http://127.0.0.1:1 is not encrypted"),
        (["bench", "cats", "--insecure"], "--insecure: http://127.0.0.1:8080 is not encrypted"),
        (["bench", "https://127.0.0.1:1/x", "--insecure", "--cacert", "ca.pem"], "give one of them"),
        (["bench", "http://127.0.0.1:1/x", "--url", "http://127.0.0.1:8080"], "--url is the server of a model"),
        (["bench", "cats", "--connections", "5"], "--connections is for an open loop: give --rate"),
        (["bench", "cats", "--concurrency", "1", "--arrivals", "constant"], "--arrivals is for an open loop"),
        (["predict", "cats", "-d", "1", "--insecure"], "--insecure: http://127.0.0.1:8080 is not encrypted"),
        (["models", "list", "--cacert", "ca.pem"], "--cacert: http://127.0.0.1:8081 is not encrypted"),
    ],
)
def test_option_is_ignored(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (("Content-Type", "a/b"), "made by gRPC itself"),
        (("grpc-timeout", "1S"), "made by gRPC itself"),
        (("x a", "b"), "cannot be sent over gRPC"),
        (("x", "ä"), "cannot be sent over gRPC"),
        (("x-bin", "b"), "cannot be sent over gRPC"),
    ],
)
def test_grpc_leaves_a_header_out(header: tuple[str, str], words: str) -> None:
    plain = target("cats", protocol="grpc", headers=["X-A: b"])
    assert metadata_of(plain) == (("x-a", "b"),)
    with pytest.raises(SettingError, match=words):
        metadata_of(dataclasses.replace(plain, headers=(header,)))


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
