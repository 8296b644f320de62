"""The gRPC definitions: what is on the wire must stay what TorchServe's clients were built with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from mlserve.rpc.generated import inference_pb2, management_pb2, open_inference_pb2

PROTOS = Path(__file__).resolve().parents[2] / "mlserve" / "rpc" / "protos"
FILES = {"inference": inference_pb2, "management": management_pb2, "open_inference": open_inference_pb2}

WIRE = """
inference.PredictionsRequest model_name=1:string model_version=2:string input=3:map<string,bytes> sequence_id=4:string?
inference.PredictionResponse prediction=1:bytes sequence_id=2:string? status=3:google.rpc.Status?
inference.TorchServeHealthResponse health=1:string
management.ManagementResponse msg=1:string
management.DescribeModelRequest model_name=1:string model_version=2:string customized=3:bool
management.ListModelsRequest limit=1:int32 next_page_token=2:int32
management.RegisterModelRequest batch_size=1:int32 handler=2:string initial_workers=3:int32 max_batch_delay=4:int32 \
model_name=5:string response_timeout=6:int32 runtime=7:string synchronous=8:bool url=9:string s3_sse_kms=10:bool \
startup_timeout=11:int32
management.ScaleWorkerRequest model_name=1:string model_version=2:string max_worker=3:int32 min_worker=4:int32 \
number_gpu=5:int32 synchronous=6:bool timeout=7:int32
management.SetDefaultRequest model_name=1:string model_version=2:string
management.UnregisterModelRequest model_name=1:string model_version=2:string
openinference.ServerLiveResponse live=1:bool
openinference.ServerReadyResponse ready=1:bool
openinference.ServerMetadataResponse name=1:string version=2:string extensions=3:string*
openinference.ModelReadyRequest name=1:string version=2:string
openinference.ModelReadyResponse ready=1:bool
openinference.ModelMetadataRequest name=1:string version=2:string
openinference.ModelMetadataResponse name=1:string versions=2:string* platform=3:string inputs=4:TensorMetadata* \
outputs=5:TensorMetadata*
openinference.ModelMetadataResponse.TensorMetadata name=1:string datatype=2:string shape=3:int64*
openinference.ModelInferRequest model_name=1:string model_version=2:string id=3:string \
parameters=4:map<string,InferParameter> \
inputs=5:InferInputTensor* outputs=6:InferRequestedOutputTensor* raw_input_contents=7:bytes*
openinference.ModelInferRequest.InferInputTensor name=1:string datatype=2:string shape=3:int64* \
parameters=4:map<string,InferParameter> \
contents=5:InferTensorContents
openinference.ModelInferRequest.InferRequestedOutputTensor name=1:string parameters=2:map<string,InferParameter>
openinference.ModelInferResponse model_name=1:string model_version=2:string id=3:string \
parameters=4:map<string,InferParameter> \
outputs=5:InferOutputTensor* raw_output_contents=6:bytes*
openinference.ModelInferResponse.InferOutputTensor name=1:string datatype=2:string shape=3:int64* \
parameters=4:map<string,InferParameter> \
contents=5:InferTensorContents
openinference.InferParameter bool_param=1:bool int64_param=2:int64 string_param=3:string
openinference.InferTensorContents bool_contents=1:bool* int_contents=2:int32* int64_contents=3:int64* \
uint_contents=4:uint32* uint64_contents=5:uint64* fp32_contents=6:float* fp64_contents=7:double* bytes_contents=8:bytes*
"""
"""Message -> its fields with number and type; ``?`` tells whether it is set, ``*`` is repeated."""

METHODS = """
inference.InferenceAPIsService Ping Predictions StreamPredictions> <StreamPredictions2>
management.ManagementAPIsService DescribeModel ListModels RegisterModel ScaleWorker SetDefault UnregisterModel
openinference.GRPCInferenceService ServerLive ServerReady ModelReady ServerMetadata ModelMetadata ModelInfer
"""
"""Service -> its methods; ``<`` and ``>`` tell which side streams."""


def rows(table: str) -> list[tuple[str, list[str]]]:
    return [(line.split()[0], line.split()[1:]) for line in table.strip().replace("\\\n", "").splitlines()]


def named(full_name: str) -> tuple[Any, str]:
    package, _, name = full_name.partition(".")
    module = FILES["open_inference" if package == "openinference" else package]
    assert f"org.pytorch.serve.grpc.{package}" == module.DESCRIPTOR.package
    return module, name


def shape(field: Any) -> str:
    kind = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.message_type is not None:
        is_map = field.message_type.GetOptions().map_entry
        full = field.message_type.full_name
        kind = full if full.startswith("google.") else field.message_type.name
        if is_map:
            key, value = (shape(one).partition(":")[2] for one in field.message_type.fields)
            kind = f"map<{key},{value}>"
    oneof = field.containing_oneof
    mark = "?" if oneof is not None and oneof.name == f"_{field.name}" else ""
    proto = descriptor_pb2.DescriptorProto()
    field.containing_type.CopyToProto(proto)
    (own,) = [one for one in proto.field if one.number == field.number]
    repeated = own.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED and not kind.startswith("map<")
    return f"{field.name}={field.number}:{kind}{'*' if repeated else mark}"


@pytest.mark.parametrize(("message", "fields"), rows(WIRE))
def test_fields_keep_their_numbers_and_types(message: str, fields: list[str]) -> None:
    module, name = named(message)
    outer, _, inner = name.partition(".")
    found = module.DESCRIPTOR.message_types_by_name[outer]
    if inner:
        found = found.nested_types_by_name[inner]
    assert sorted(map(shape, found.fields)) == sorted(fields)


@pytest.mark.parametrize(("service", "methods"), rows(METHODS))
def test_services_keep_their_methods(service: str, methods: list[str]) -> None:
    module, name = named(service)
    found = module.DESCRIPTOR.services_by_name[name].methods
    marks = [f"{'<' if one.client_streaming else ''}{one.name}{'>' if one.server_streaming else ''}" for one in found]
    assert marks == methods


@pytest.mark.parametrize("name", FILES)
def test_generated_code_is_that_of_the_definitions(name: str, tmp_path: Path) -> None:
    """scripts/protos writes it anew."""
    protoc = pytest.importorskip("grpc_tools.protoc")
    pytest.importorskip("google.rpc.status_pb2")
    import google.rpc

    includes = Path(next(iter(google.rpc.__path__))).parents[1]
    tools = Path(protoc.__file__).parent / "_proto"
    here = "mlserve/rpc/generated"
    out = tmp_path / "set.pb"
    arguments = [f"-I{here}={PROTOS}", f"-I{includes}", f"-I{tools}", f"--descriptor_set_out={out}"]
    assert protoc.main(["protoc", *arguments, f"{here}/{name}.proto"]) == 0
    (wanted,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    found = descriptor_pb2.FileDescriptorProto()
    FILES[name].DESCRIPTOR.CopyToProto(found)
    assert without_json_names(found) == without_json_names(wanted)


def without_json_names(file: Any) -> str:
    return re.sub(r'\n *json_name: "[^"]*"', "", str(file))


@pytest.mark.parametrize("name", FILES)
def test_generated_code_asks_for_no_newer_protobuf_than_the_project(name: str) -> None:
    """What newer generators write refuses every runtime that is older than they are."""
    source = Path(str(FILES[name].__file__)).read_text()
    assert "runtime_version" not in source
    assert "# Protobuf Python Version: 4.25" in source
