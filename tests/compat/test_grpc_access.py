"""Who may call what over gRPC, how, and for how long: tokens, the closed model API, Open Inference, TLS."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from support.drop_in import DropIn, archive, free_ports, make_pair
from support.grpc_client import TIMEOUT, refusal

from mlserve.rpc.generated import inference_pb2 as ip
from mlserve.rpc.generated import inference_pb2_grpc, management_pb2_grpc, open_inference_pb2_grpc
from mlserve.rpc.generated import management_pb2 as mp
from mlserve.rpc.generated import open_inference_pb2 as op

REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
DISABLED = "Model API disabled\norg.pytorch.serve.archive.model.ModelException"
NO_MODEL = "Model not found: none\norg.pytorch.serve.archive.model.ModelNotFoundException"
MIRROR = """
class Mirror:
    def initialize(self, context):
        self.context = context

    def handle(self, data, context):
        return [tensor["data"] for tensor in data]
"""
LIFETIME = 3.0
CLOSED = {
    "disable_token_authorization": "false",
    "enable_model_api": "false",
    "load_models": "noop.mar",
    "ts_open_inference_protocol": "true",
}


class Caller:
    """The stubs of a server, which call with a token or without one."""

    def __init__(self, live: DropIn, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.live = live
        options = [("grpc.ssl_target_name_override", "localhost")]
        targets = [f"127.0.0.1:{live.ports[f'grpc_{api}']}" for api in ("inference", "management")]
        self.channels = [
            grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target)
            for target in targets
        ]
        self.stubs = (
            inference_pb2_grpc.InferenceAPIsServiceStub(self.channels[0]),
            open_inference_pb2_grpc.GRPCInferenceServiceStub(self.channels[0]),
            management_pb2_grpc.ManagementAPIsServiceStub(self.channels[1]),
        )

    def bearer(self, name: str) -> str:
        key = json.loads((self.live.directory / "key_file.json").read_text())[name]["key"]
        return f"Bearer {key}"

    def __call__(self, method: str, request: Any, token: str | None = None) -> Any:
        (stub,) = [one for one in self.stubs if hasattr(one, method)]
        metadata = () if token is None else (("authorization", token),)
        return getattr(stub, method)(request, timeout=TIMEOUT, metadata=metadata)


def caller(live: DropIn, **options: Any) -> Iterator[Caller]:
    made = Caller(live, **options)
    yield made
    for channel in made.channels:
        channel.close()


@pytest.fixture(scope="module")
def guarded(start) -> Iterator[Caller]:
    """As without any settings, but for the Open Inference Protocol."""
    yield from caller(start(CLOSED))


PREDICT = ip.PredictionsRequest(model_name="noop", input={"data": b"x"})
UNKNOWN = ip.PredictionsRequest(model_name="none", input={"data": b"x"})
LIST, DESCRIBE = mp.ListModelsRequest(limit=1), mp.DescribeModelRequest(model_name="none")


@pytest.mark.parametrize(
    ("method", "request_", "other"),
    [
        ("Ping", Empty(), "management"),
        ("Predictions", PREDICT, "management"),
        ("Predictions", UNKNOWN, "API"),
        ("ServerLive", op.ServerLiveRequest(), "management"),
        ("ModelInfer", op.ModelInferRequest(), "management"),
        ("ListModels", LIST, "inference"),
        ("DescribeModel", DESCRIBE, "API"),
        ("RegisterModel", mp.RegisterModelRequest(url="klass.mar"), "inference"),
    ],
)
def test_a_call_without_the_ports_key_is_refused(guarded: Caller, method: str, request_: Any, other: str) -> None:
    right = guarded.bearer("inference" if other == "management" or method == "Predictions" else "management")
    wrong = (None, "", "Bearer", "Bearer wrong", right.replace("Bearer", "Basic"), f"{right} x", right[7:])
    for token in (*wrong, guarded.bearer(other)):
        assert refusal(lambda token=token: guarded(method, request_, token)) == ("PERMISSION_DENIED", REFUSED), token


def test_a_stream_without_a_key_is_refused(guarded: Caller) -> None:
    for call in (
        lambda: list(guarded("StreamPredictions", PREDICT)),
        lambda: list(guarded("StreamPredictions2", iter([PREDICT]))),
    ):
        assert refusal(call) == ("PERMISSION_DENIED", REFUSED)


def test_a_call_with_its_key_passes(guarded: Caller) -> None:
    inference, management = guarded.bearer("inference"), guarded.bearer("management")
    assert json.loads(guarded("Ping", Empty(), inference).health) == {"status": "Healthy"}
    assert guarded("Predictions", PREDICT, inference).prediction == b"OK"
    assert guarded("ServerLive", op.ServerLiveRequest(), inference).live
    assert json.loads(guarded("ListModels", LIST, management).msg)["models"][0]["modelName"] == "noop"


def test_the_last_of_several_keys_counts(guarded: Caller) -> None:
    wrong, right = ("authorization", "Bearer wrong"), ("authorization", guarded.bearer("inference"))
    ping = guarded.stubs[0].Ping
    assert ping(Empty(), timeout=TIMEOUT, metadata=(wrong, right)).health
    refused = refusal(lambda: ping(Empty(), timeout=TIMEOUT, metadata=(right, wrong)))
    assert refused == ("PERMISSION_DENIED", REFUSED)


def test_a_renewed_key_replaces_the_old_one_for_grpc_too(guarded: Caller) -> None:
    old, api = guarded.bearer("inference"), {"Authorization": guarded.bearer("API")}
    assert guarded.live.ask("GET", "/token?type=inference", None, api, "management").status == 200
    assert refusal(lambda: guarded("Ping", Empty(), old)) == ("PERMISSION_DENIED", REFUSED)
    assert guarded("Predictions", PREDICT, guarded.bearer("inference")).prediction == b"OK"


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("RegisterModel", mp.RegisterModelRequest(url="klass.mar")),
        ("RegisterModel", mp.RegisterModelRequest()),
        ("UnregisterModel", mp.UnregisterModelRequest(model_name="noop")),
        ("UnregisterModel", mp.UnregisterModelRequest(model_name="none")),
    ],
)
def test_the_closed_model_api_is_closed_over_grpc(guarded: Caller, method: str, request_: Any) -> None:
    token = guarded.bearer("management")
    assert refusal(lambda: guarded(method, request_, token)) == ("PERMISSION_DENIED", DISABLED)


def test_the_closed_model_api_still_changes_what_is_loaded(guarded: Caller) -> None:
    token = guarded.bearer("management")
    scale = mp.ScaleWorkerRequest(model_name="noop", min_worker=1)
    assert guarded("ScaleWorker", scale, token).msg == "Processing worker updates..."
    default = mp.SetDefaultRequest(model_name="noop", model_version="1.11")
    assert "successfully updated" in guarded("SetDefault", default, token).msg
    (model,) = json.loads(guarded("DescribeModel", mp.DescribeModelRequest(model_name="noop"), token).msg)
    assert model["modelName"] == "noop"


@pytest.mark.parametrize(
    ("method", "request_", "code", "details"),
    [
        ("ModelReady", op.ModelReadyRequest(), "INTERNAL", "Parameter name is required.\nBadRequestException.()"),
        ("ModelReady", op.ModelReadyRequest(name="none"), "NOT_FOUND", NO_MODEL),
        ("ModelMetadata", op.ModelMetadataRequest(), "INTERNAL", None),
        ("ModelMetadata", op.ModelMetadataRequest(name="none"), "NOT_FOUND", NO_MODEL),
        ("ModelInfer", op.ModelInferRequest(), "INTERNAL", "Parameter model_name is required.\nBadRequestException.()"),
        ("ModelInfer", op.ModelInferRequest(model_name="none"), "INTERNAL", NO_MODEL),
        ("ServerMetadata", op.ServerMetadataRequest(), "UNIMPLEMENTED", None),
    ],
)
def test_the_open_protocol_refuses_as_there(
    guarded: Caller, method: str, request_: Any, code: str, details: str | None
) -> None:
    found = refusal(lambda: guarded(method, request_, guarded.bearer("inference")))
    assert found[0] == code
    assert details in (None, found[1])


def test_the_open_protocol_tells_of_server_and_models(guarded: Caller) -> None:
    token = guarded.bearer("inference")
    assert guarded("ServerReady", op.ServerReadyRequest(), token).ready
    assert guarded("ModelReady", op.ModelReadyRequest(name="noop"), token).ready
    assert guarded("ModelReady", op.ModelReadyRequest(name="noop", version="1.11"), token).ready
    metadata = guarded("ModelMetadata", op.ModelMetadataRequest(name="noop"), token)
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("noop", ["1.11"], "")


@pytest.fixture(scope="module")
def sealed(start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """TLS everywhere, an envelope, keys of 3 seconds, connections of 1."""
    certificate, key = make_pair(tmp_path_factory.mktemp("tls"))
    store = tmp_path_factory.mktemp("store")
    archive(store, "mirror", MIRROR)
    given = {
        **CLOSED,
        "load_models": "mirror.mar",
        "enable_grpc_ssl": "true",
        "service_envelope": "kservev2",
        "token_expiration_min": LIFETIME / 60,
        "certificate_file": certificate,
        "private_key_file": key,
        "grpc_inference_max_connection_age_ms": 1000,
        "grpc_inference_max_connection_age_grace_ms": 1000,
    }
    ports = dict(zip(("inference", "management"), free_ports(2), strict=True))
    given |= {f"{api}_address": f"https://127.0.0.1:{port}" for api, port in ports.items()}
    live = start(given, store=store)
    live.ports.update(ports)
    live.tls = ssl.create_default_context(cafile=certificate)
    yield from caller(live, credentials=grpc.ssl_channel_credentials(certificate.read_bytes()))


def fresh(sealed: Caller, kind: str = "inference") -> str:
    """A key that has just been made."""
    renewed = sealed.live.manage("GET", f"/token?type={kind}", Authorization=sealed.bearer("API"))
    assert renewed.status == 200
    return sealed.bearer(kind)


def test_a_plain_client_is_not_served_where_tls_is_spoken(sealed: Caller) -> None:
    for api in ("inference", "management"):
        told = replace(sealed.live, tls=None).ask("GET", "/ping", api=api)
        assert told.json() == {"status": "This TorchServe instance only accepts HTTPS requests"}
    plain = Caller(sealed.live)
    assert refusal(lambda: plain("Ping", Empty()))[0] == "UNAVAILABLE"
    assert refusal(lambda: plain("ListModels", LIST))[0] == "UNAVAILABLE"
    for channel in plain.channels:
        channel.close()


def test_a_key_that_expires_is_refused_on_every_port(sealed: Caller) -> None:
    inference, management = fresh(sealed), fresh(sealed, "management")
    assert json.loads(health(sealed, inference)) == {"status": "Healthy"}
    assert sealed("ListModels", LIST, management).msg
    assert status(sealed, "/ping", inference, "inference") == 200
    time.sleep(LIFETIME + 0.5)
    assert refusal(lambda: sealed("Ping", Empty(), inference)) == ("PERMISSION_DENIED", REFUSED)
    assert refusal(lambda: sealed("ListModels", LIST, management)) == ("PERMISSION_DENIED", REFUSED)
    assert status(sealed, "/ping", inference, "inference") == 400
    assert status(sealed, "/models", management, "management") == 400


def status(sealed: Caller, path: str, token: str, api: str) -> int:
    return sealed.live.ask("GET", path, None, {"Authorization": token}, api).status


def health(sealed: Caller, token: str) -> str:
    return str(sealed("Ping", Empty(), token).health)


@pytest.mark.parametrize(
    ("kind", "contents", "answer"),
    [
        ("INT32", {"int_contents": [1, 2]}, ("INT64", "int64_contents", [1, 2])),
        ("FP32", {"fp32_contents": [0.5, 2]}, ("FP64", "fp64_contents", [0.5, 2])),
        ("BYTES", {"bytes_contents": [b"ab"]}, ("BYTES", "bytes_contents", [b'"YWI="'])),
    ],
)
def test_tensors_go_through_the_envelope(
    sealed: Caller, kind: str, contents: dict[str, Any], answer: tuple[str, str, list[Any]]
) -> None:
    (values,) = contents.values()
    tensor = op.ModelInferRequest.InferInputTensor(
        name="in", datatype=kind, shape=[len(values)], contents=op.InferTensorContents(**contents)
    )
    request = op.ModelInferRequest(model_name="mirror", id="7", inputs=[tensor])
    response = sealed("ModelInfer", request, fresh(sealed))
    assert (response.id, response.model_name, response.model_version) == ("7", "mirror", "1.0")
    (output,) = response.outputs
    datatype, field, data = answer
    assert (output.name, output.datatype, list(output.shape)) == ("in", datatype, [len(values)])
    assert list(getattr(output.contents, field)) == data


def test_a_connection_is_closed_when_it_is_old(sealed: Caller) -> None:
    states: list[grpc.ChannelConnectivity] = []
    token = fresh(sealed)
    sealed("Ping", Empty(), token)
    sealed.channels[0].subscribe(states.append)
    time.sleep(2.5)
    sealed.channels[0].unsubscribe(states.append)
    assert grpc.ChannelConnectivity.IDLE in states
    assert health(sealed, fresh(sealed))
