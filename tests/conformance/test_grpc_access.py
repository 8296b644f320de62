"""Who reaches the gRPC ports and how they end: tokens, calls that are off, TLS, taken ports, stopping, health."""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from support.grpc_client import JAVA, TIMEOUT, Stubs, ask, refusal, serving
from support.server import launched, running

from mlserve.rpc.generated import inference_pb2_grpc
from mlserve.rpc.generated import management_pb2 as pb

HANDLERS = Path(__file__).parent / "handlers"
MODEL = f"modes={HANDLERS / 'modes.py'}"
REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stubs, dict[str, str]]]:
    """A server that asks for tokens and lets nobody register, and its keys."""
    directory = tmp_path_factory.mktemp("guarded")
    with serving(directory, MODEL, settings={"AUTH_TOKENS": "true", "MODELS_MODEL_API": "false", **JAVA}) as stubs:
        keys = json.loads((directory / "key_file.json").read_text())
        yield stubs, {api: keys[api]["key"] for api in ("inference", "management")}


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("protocol", "gRPC"), ("authorization", f"Bearer {key}"))


@pytest.mark.parametrize("which", [None, "wrong", "management"])
def test_inference_without_its_token_is_refused(guarded: tuple[Stubs, dict[str, str]], which: str | None) -> None:
    stubs, keys = guarded
    metadata = None if which is None else bearer(keys.get(which, which))
    answer = refusal(lambda: stubs.inference.Predictions(ask("x"), metadata=metadata, timeout=TIMEOUT))
    assert answer == ("PERMISSION_DENIED", REFUSED)
    stream = stubs.inference.StreamPredictions2(iter([ask("x", sequence_id="a")]), metadata=metadata, timeout=TIMEOUT)
    assert refusal(lambda: list(stream)) == ("PERMISSION_DENIED", REFUSED)


def test_each_api_takes_its_own_token(guarded: tuple[Stubs, dict[str, str]]) -> None:
    stubs, keys = guarded
    answer = stubs.inference.Predictions(ask("x"), metadata=bearer(keys["inference"]), timeout=TIMEOUT)
    assert answer.prediction == b"x"
    request = pb.ListModelsRequest(limit=5)
    assert "modes" in stubs.management.ListModels(request, metadata=bearer(keys["management"]), timeout=TIMEOUT).msg
    code, _ = refusal(lambda: stubs.management.ListModels(request, metadata=bearer(keys["inference"]), timeout=TIMEOUT))
    assert code == "PERMISSION_DENIED"


def test_models_cannot_be_changed_where_that_is_switched_off(guarded: tuple[Stubs, dict[str, str]]) -> None:
    stubs, keys = guarded
    theirs = ("PERMISSION_DENIED", "Model API disabled\norg.pytorch.serve.archive.model.ModelException")
    metadata = bearer(keys["management"])
    register, unregister = pb.RegisterModelRequest(url="x.mar"), pb.UnregisterModelRequest(model_name="modes")
    for method, request in ((stubs.management.RegisterModel, register), (stubs.management.UnregisterModel, unregister)):
        assert refusal(lambda m=method, r=request: m(r, metadata=metadata, timeout=TIMEOUT)) == theirs
    scale = pb.ScaleWorkerRequest(model_name="modes", min_worker=1, synchronous=True)
    assert stubs.management.ScaleWorker(scale, metadata=metadata, timeout=TIMEOUT).msg == (
        "Workers scaled to 1 for model: modes"
    )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", chain]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return chain, key


@pytest.mark.parametrize("form", ["pem", "pkcs12"])
def test_tls_is_spoken_where_the_settings_say(tmp_path: Path, certificate: tuple[Path, Path], form: str) -> None:
    chain, key = certificate
    settings = {"GRPC_ENABLED": "true", "TLS_APIS": "grpc_inference,grpc_management"}
    if form == "pem":
        settings |= {"TLS_CERTIFICATE_FILE": str(chain), "TLS_PRIVATE_KEY_FILE": str(key)}
    else:
        pytest.importorskip("cryptography")
        store = tmp_path / "store.p12"
        export = ["openssl", "pkcs12", "-export", "-in", chain, "-inkey", key, "-out", store, "-passout", "pass:secret"]
        subprocess.run(export, check=True, capture_output=True, timeout=60)
        settings |= {"TLS_KEYSTORE": str(store), "TLS_KEYSTORE_PASS": "secret"}
    with running(tmp_path / "server", MODEL, settings=settings) as server:
        assert server.addresses["grpc_inference"].startswith("grpcs://127.0.0.1:")
        stubs = Stubs(server, grpc.ssl_channel_credentials(chain.read_bytes()))
        assert stubs.predict("x") == b"x"
        assert stubs.predict("x" * 1_000_000) == b"x" * 1_000_000
        stubs.close()
        plain = Stubs(server)
        assert refusal(lambda: plain.predict("x"))[0] == "UNAVAILABLE"
        plain.close()


def test_tls_without_a_certificate_says_what_is_missing(tmp_path: Path) -> None:
    with launched(tmp_path, settings={"GRPC_ENABLED": "true", "TLS_APIS": "grpc_management"}) as server:
        assert server.wait(20) != 0
        assert "tls.certificate_file" in server.log_text()
        assert "Traceback" not in server.log_text()


def test_a_taken_port_fails_at_once_and_names_the_api_and_the_port(tmp_path: Path) -> None:
    """Two servers that share a port get a part of the calls each."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"GRPC_ENABLED": "true", "SERVER_GRPC_MANAGEMENT_PORT": str(port)}
        with launched(tmp_path, MODEL, settings=settings) as server:
            assert server.wait(20) == 1
            assert f"the grpc_management API cannot listen on 127.0.0.1:{port}: Address already" in server.log_text()
            server.check_nothing_left()


def test_a_port_of_a_running_server_is_not_shared(tmp_path: Path) -> None:
    with serving(tmp_path / "first", MODEL) as stubs:
        port = stubs.server.port("grpc_inference")
        settings = {"GRPC_ENABLED": "true", "SERVER_GRPC_INFERENCE_PORT": str(port)}
        with launched(tmp_path / "second", settings=settings) as server:
            assert server.wait(20) == 1


def test_a_unix_socket_is_its_servers_alone(tmp_path: Path) -> None:
    """The file of a running server is not taken from it."""
    path = tmp_path / "g.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(path))  # what a killed server leaves behind
    settings = {"GRPC_ENABLED": "true", "SERVER_GRPC_INFERENCE_HOST": f"unix:{path}"}
    with running(tmp_path / "first", MODEL, settings=settings):
        assert not path.stat().st_mode & 0o002, "others may connect although the umask keeps them out"
        with grpc.insecure_channel(f"unix:{path}") as channel:
            ping = inference_pb2_grpc.InferenceAPIsServiceStub(channel).Ping
            assert "Healthy" in ping(Empty(), timeout=20).health
            with launched(tmp_path / "second", settings=settings) as second:
                assert second.wait(20) == 1
                text = second.log_text()
                assert f"the grpc_inference API cannot listen on unix:{path}: another process listens there" in text
        with grpc.insecure_channel(f"unix:{path}") as again:
            assert "Healthy" in inference_pb2_grpc.InferenceAPIsServiceStub(again).Ping(Empty(), timeout=20).health
    assert not path.exists()
    path.write_text("precious")
    with launched(tmp_path / "third", settings=settings) as third:
        assert third.wait(20) == 1
        assert "no socket" in third.log_text()
    assert path.read_text() == "precious"


def test_nothing_listens_where_grpc_is_off(tmp_path: Path) -> None:
    with running(tmp_path, MODEL) as server:
        assert not [name for name in server.addresses if name.startswith("grpc")]


def test_stopping_answers_what_was_accepted_and_ends_open_streams(tmp_path: Path) -> None:
    """A client that keeps its stream open must not hold the server up."""
    with serving(tmp_path, MODEL) as stubs:
        requests: queue.Queue = queue.Queue()
        requests.put(ask("first", sequence_id="a"))
        stream = stubs.inference.StreamPredictions2(iter(requests.get, None), timeout=TIMEOUT)
        assert next(stream).prediction == b"first"
        slow = stubs.inference.Predictions.future(ask(f"mark {tmp_path / 'begun'}"), timeout=TIMEOUT)
        stubs.server.wait_for((tmp_path / "begun").exists)
        ended = threading.Thread(target=lambda: list(stream))
        ended.start()
        assert stubs.server.stop() == 0
        assert slow.result().prediction == b"done"
        ended.join(5)
        assert not ended.is_alive()
        requests.put(None)


def test_health_and_reflection_where_they_are_installed(tmp_path: Path) -> None:
    pb_health = pytest.importorskip("grpc_health.v1.health_pb2")
    stubs_of = pytest.importorskip("grpc_health.v1.health_pb2_grpc").HealthStub
    reflect = pytest.importorskip("grpc_reflection.v1alpha.reflection_pb2")
    with serving(tmp_path, MODEL) as stubs:
        health = stubs_of(stubs.channel)
        name = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
        for service in ("", name):
            answer = health.Check(pb_health.HealthCheckRequest(service=service), timeout=TIMEOUT)
            assert answer.status == pb_health.HealthCheckResponse.SERVING
        unknown = pb_health.HealthCheckRequest(service="no")
        assert refusal(lambda: health.Check(unknown, timeout=TIMEOUT))[0] == "NOT_FOUND"
        method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        call = stubs.channel.stream_stream(
            method,
            reflect.ServerReflectionRequest.SerializeToString,
            reflect.ServerReflectionResponse.FromString,
        )
        (answer,) = call(iter([reflect.ServerReflectionRequest(list_services="")]), timeout=TIMEOUT)
        assert name in [service.name for service in answer.list_services_response.service]
