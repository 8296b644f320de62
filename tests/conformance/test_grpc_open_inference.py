"""The Open Inference Protocol over gRPC: health, metadata, and tensors in every form there and back."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.grpc_client import JAVA, TIMEOUT, Stubs, refusal, serving

from mlserve.rpc.generated import open_inference_pb2 as pb

HANDLERS = Path(__file__).parent / "handlers"
MODELS = tuple(f"{name}={HANDLERS / name}.py" for name in ("tensors", "mirror", "nameless"))
ON = {"SERVER_OPEN_INFERENCE": "true"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    with serving(tmp_path_factory.mktemp("own"), *MODELS, settings=ON) as stubs:
        yield stubs


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    with serving(tmp_path_factory.mktemp("java"), *MODELS, settings={**ON, **JAVA}) as stubs:
        yield stubs


def call(stubs: Stubs, method: str, **fields: Any) -> Any:
    return getattr(stubs.open_inference, method)(getattr(pb, f"{method}Request")(**fields), timeout=TIMEOUT)


def infer(stubs: Stubs, *inputs: Any, raw: tuple[bytes, ...] = (), model: str = "tensors") -> Any:
    request = pb.ModelInferRequest(model_name=model, id="id-1", inputs=inputs, raw_input_contents=raw)
    return stubs.open_inference.ModelInfer(request, timeout=TIMEOUT)


def tensor(kind: str, shape: list[int], **contents: Any) -> Any:
    return pb.ModelInferRequest.InferInputTensor(
        name="in", datatype=kind, shape=shape, contents=pb.InferTensorContents(**contents)
    )


def test_health_and_metadata(own: Stubs) -> None:
    assert call(own, "ServerLive").live
    assert call(own, "ServerReady").ready
    assert call(own, "ModelReady", name="tensors").ready
    metadata = call(own, "ModelMetadata", name="tensors")
    assert (metadata.name, metadata.versions, metadata.platform) == ("tensors", ["1.0"], "")


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-1, 2]),
        ("INT32", "int_contents", [-1, 2]),
        ("INT64", "int64_contents", [-(1 << 40), 2]),
        ("UINT8", "uint_contents", [1, 255]),
        ("UINT64", "uint64_contents", [1, 1 << 63]),
        ("FP32", "fp32_contents", [0.5, -2.0]),
        ("FP64", "fp64_contents", [0.1, -2.0]),
    ],
)
def test_a_tensor_of_each_type_goes_there_and_back(own: Stubs, kind: str, field: str, values: list[Any]) -> None:
    answer = infer(own, tensor(kind, [2, 1], **{field: values}))
    assert (answer.model_name, answer.model_version, answer.id) == ("tensors", "1.0", "id-1")
    (output,) = answer.outputs
    assert (output.name, output.datatype, output.shape) == ("in", kind, [2, 1])
    assert list(getattr(output.contents, field)) == values


def test_texts_come_back_plain_and_for_torchserves_clients_in_quotes(own: Stubs, java: Stubs) -> None:
    texts = tensor("BYTES", [2], bytes_contents=[b"a\xff", b""])  # the model sees base64
    assert list(infer(own, texts).outputs[0].contents.bytes_contents) == [b"Yf8=", b""]
    assert list(infer(java, texts).outputs[0].contents.bytes_contents) == [b'"Yf8="', b'""']


def test_raw_contents_are_answered_raw(own: Stubs) -> None:
    answer = infer(own, tensor("INT16", [3]), tensor("FP16", [1]), raw=(struct.pack("<3h", 1, -2, 3), b"\x00\x3c"))
    assert [output.datatype for output in answer.outputs] == ["INT16", "FP16"]
    assert list(answer.raw_output_contents) == [struct.pack("<3h", 1, -2, 3), b"\x00\x3c"]
    assert not answer.outputs[0].HasField("contents")


@pytest.mark.parametrize(
    ("inputs", "raw", "words"),
    [
        ([tensor("INT32", [3])], (b"1234",), "are no INT32 of shape [3]"),
        ([tensor("INT32", [-1])], (b"1234",), "are no INT32 of shape [-1]"),
        ([tensor("INT32", [-1, -1])], (b"1234",), "are no INT32 of shape [-1, -1]"),
        ([tensor("INT32", [1])], (b"1234", b"1234"), "2 entries for 1 inputs"),
        ([tensor("BYTES", [1])], (b"\xff\x00\x00\x00a",), "end within an element"),
        ([tensor("BYTES", [1])], (b"\x01",), "end within an element"),
        ([tensor("BF16", [1])], (b"12",), "'BF16' is not known"),
        ([tensor("FP16", [1])], (), "send it raw"),
        ([tensor("nonsense", [1])], (), "send it raw"),
    ],
)
def test_a_tensor_that_is_not_what_it_says_is_refused(own: Stubs, inputs, raw, words) -> None:
    code, details = refusal(lambda: infer(own, *inputs, raw=raw))
    assert code == "INVALID_ARGUMENT"
    assert words in details


def test_an_answer_that_is_no_tensor_is_an_error_that_names_the_envelope(own: Stubs) -> None:
    code, details = refusal(lambda: infer(own, tensor("INT64", [1], int64_contents=[7]), model="mirror"))
    assert code == "INTERNAL"
    assert "kservev2" in details


def test_a_model_that_does_not_say_its_name_is_answered_for_and_null_is_nan(own: Stubs) -> None:
    answer = infer(own, tensor("INT64", [1], int64_contents=[7]), model="nameless")
    assert (answer.model_name, answer.model_version) == ("nameless", "1.0")
    first, second = answer.outputs[0].contents.fp32_contents
    assert first == 1.5
    assert math.isnan(second)


NOT_FOUND = ("NOT_FOUND", "Model not found: no\norg.pytorch.serve.archive.model.ModelNotFoundException")


def test_refusals_in_torchserves_words(java: Stubs) -> None:
    method = "org.pytorch.serve.grpc.openinference.GRPCInferenceService/ServerMetadata"
    assert refusal(lambda: call(java, "ServerMetadata")) == ("UNIMPLEMENTED", f"Method {method} is unimplemented")
    for name in ("ModelReady", "ModelMetadata"):
        assert refusal(lambda name=name: call(java, name, name="no")) == NOT_FOUND
    required = ("INTERNAL", "Parameter name is required.\nBadRequestException.()")
    assert refusal(lambda: call(java, "ModelReady")) == required
    required = ("INTERNAL", "Parameter model_name is required.\nBadRequestException.()")
    assert refusal(lambda: call(java, "ModelMetadata")) == required
    assert refusal(lambda: call(java, "ModelInfer")) == required
    assert refusal(lambda: call(java, "ModelInfer", model_name="no")) == ("INTERNAL", NOT_FOUND[1])
