"""Who may do what: tokens, and models that the API may not add, as TorchServe's clients meet them."""

from __future__ import annotations

import json
import re
import stat
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import grpc
import pytest
from support.drop_in import DropIn
from support.grpc_client import TIMEOUT, refusal

from mlserve.rpc.generated import inference_pb2, inference_pb2_grpc, management_pb2, management_pb2_grpc

REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
NOT_ALLOWED = "Requested method is not allowed, please refer to API document."


@pytest.fixture(scope="module")
def server(start) -> DropIn:
    """Tokens are asked for and the model API is closed, as without any settings."""
    closed = {"disable_token_authorization": "false", "enable_model_api": "false", "load_models": "noop.mar"}
    return start(closed)


def keys(server: DropIn) -> dict[str, Any]:
    return json.loads((server.directory / "key_file.json").read_text())


def bearer(server: DropIn, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys(server)[name]['key']}"}


def test_the_key_file_is_torchserves_and_its_owners_only(server: DropIn) -> None:
    document = keys(server)
    assert {name: set(entry) for name, entry in document.items()} == {
        "management": {"key", "expiration time"},
        "inference": {"key", "expiration time"},
        "API": {"key"},
    }
    assert all(re.fullmatch(r"[\w-]{8}", entry["key"]) for entry in document.values())
    for name in ("management", "inference"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", document[name]["expiration time"])
    assert stat.S_IMODE((server.directory / "key_file.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("api", "method", "path", "key"),
    [
        ("inference", "POST", "/predictions/noop", "inference"),
        ("inference", "GET", "/ping", "inference"),
        ("management", "GET", "/models", "management"),
        ("management", "GET", "/models/noop", "management"),
        ("inference", "GET", "/api-description", None),
        ("management", "GET", "/api-description", None),
        ("inference", "OPTIONS", "/", None),
        ("management", "OPTIONS", "/", None),
        ("metrics", "GET", "/metrics", None),
    ],
)
def test_a_call_with_its_key_or_without_need_of_one_passes(
    server: DropIn, api: str, method: str, path: str, key: str | None
) -> None:
    assert server.ask(method, path, None, bearer(server, key) if key else {}, api).status == 200


@pytest.mark.parametrize(
    ("api", "method", "path"),
    [
        ("inference", "POST", "/predictions/noop"),
        ("inference", "POST", "/predictions/none"),
        ("inference", "GET", "/nowhere"),
        ("management", "GET", "/models"),
        ("management", "POST", "/models?url=noop.mar"),
        ("management", "GET", "/nowhere"),
    ],
)
@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", "Bearer {key} more", "Basic {key}", "other"])
def test_a_call_without_the_ports_key_is_refused_before_it_is_routed(
    server: DropIn, api: str, method: str, path: str, given: str
) -> None:
    other = "inference" if api == "management" else "management"
    if given == "other":
        headers = bearer(server, other)
    else:
        headers = {"Authorization": given.format(key=keys(server)[other]["key"])} if given else {}
    reply = server.ask(method, path, None, headers, api)
    assert (reply.status, reply.error()) == (400, (400, "InvalidKeyException", REFUSED))


@pytest.mark.parametrize(("kind", "method"), [("inference", "GET"), ("management", "GET"), ("inference", "POST")])
def test_a_key_is_renewed_with_the_api_key_alone(server: DropIn, kind: str, method: str) -> None:
    before, old = keys(server), bearer(server, kind)
    reply = server.ask(method, f"/token?type={kind}", None, bearer(server, "API"), "management")
    assert (reply.status, reply.body.strip()) == (200, b"")
    after = keys(server)
    assert [name for name in before if before[name]["key"] != after[name]["key"]] == [kind]
    path = "/ping" if kind == "inference" else "/models"
    assert server.ask("GET", path, None, old, kind).status == 400
    assert server.ask("GET", path, None, bearer(server, kind), kind).status == 200


@pytest.mark.parametrize("query", ["", "?type=", "?type=other", "?kind=inference"])
def test_a_renewal_of_no_known_key_is_refused(server: DropIn, query: str) -> None:
    before = keys(server)
    reply = server.ask("GET", f"/token{query}", None, bearer(server, "API"), "management")
    assert (reply.status, reply.error()[1]) == (400, "InvalidKeyException")
    assert keys(server) == before


@pytest.mark.parametrize("name", ["management", "inference", None])
def test_a_renewal_without_the_api_key_is_refused(server: DropIn, name: str | None) -> None:
    before = keys(server)
    headers = bearer(server, name) if name else {}
    reply = server.ask("GET", "/token?type=inference", None, headers, "management")
    assert (reply.status, reply.error()[1]) == (400, "InvalidKeyException")
    assert reply.error()[2].startswith("Token Authentication failed. ")
    assert keys(server) == before


@pytest.mark.parametrize(("method", "path"), [("POST", "/models?url=klass.mar"), ("DELETE", "/models/noop")])
def test_the_closed_model_api_keeps_its_models(server: DropIn, method: str, path: str) -> None:
    reply = server.ask(method, path, None, bearer(server, "management"), "management")
    assert (reply.status, reply.error()) == (405, (405, "MethodNotAllowedException", NOT_ALLOWED))
    models = server.ask("GET", "/models", None, bearer(server, "management"), "management").json()
    assert [model["modelName"] for model in models["models"]] == ["noop"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/models/noop", 200),
        ("PUT", "/models/noop?min_worker=1", 202),
        ("PUT", "/models/noop/1.11/set-default", 200),
    ],
)
def test_the_closed_model_api_still_changes_what_is_loaded(server: DropIn, method: str, path: str, status: int) -> None:
    assert server.ask(method, path, None, bearer(server, "management"), "management").status == status


def test_the_flags_open_what_the_settings_close(start) -> None:
    closed = {"disable_token_authorization": "false", "enable_model_api": "false"}
    live = start(closed, "--disable-token-auth", "--enable-model-api")
    assert live.manage("POST", "/models?url=noop.mar&initial_workers=0").status == 200
    assert live.status("DELETE", "/models/noop") == 'Model "noop" unregistered'
    assert not (live.directory / "key_file.json").exists()


def until(server: DropIn, kind: str) -> datetime:
    """When a key expires."""
    text = keys(server)[kind]["expiration time"]
    return datetime.fromisoformat(text[:19]).replace(tzinfo=timezone.utc)


def test_a_key_lasts_an_hour(server: DropIn) -> None:
    for kind in ("inference", "management"):
        left = until(server, kind) - datetime.now(timezone.utc)
        assert timedelta(minutes=50) < left <= timedelta(minutes=60)


def test_a_key_that_has_expired_is_refused_until_it_is_renewed(start) -> None:
    live = start({"disable_token_authorization": "false", "token_expiration_min": "0.05"})  # 3 s
    for kind, path in (("inference", "/ping"), ("management", "/models")):
        while datetime.now(timezone.utc) < until(live, kind) + timedelta(seconds=1):
            time.sleep(0.1)
        reply = live.ask("GET", path, None, bearer(live, kind), kind)
        assert (reply.status, reply.error()) == (400, (400, "InvalidKeyException", REFUSED))
        assert live.ask("GET", f"/token?type={kind}", None, bearer(live, "API"), "management").status == 200
        assert live.ask("GET", path, None, bearer(live, kind), kind).status == 200


class Client:
    """Both gRPC services, called with a key."""

    def __init__(self, server: DropIn, inference: grpc.Channel, management: grpc.Channel) -> None:
        self.server = server
        self._inference = inference_pb2_grpc.InferenceAPIsServiceStub(inference)
        self._management = management_pb2_grpc.ManagementAPIsServiceStub(management)

    def predict(self, header: str | None) -> bytes:
        request = inference_pb2.PredictionsRequest(model_name="noop", input={"data": b"x"})
        return self._inference.Predictions(request, metadata=self._metadata(header), timeout=TIMEOUT).prediction

    def manage(self, header: str | None, method: str, **fields: Any) -> str:
        request = getattr(management_pb2, f"{method}Request")(**fields)
        return getattr(self._management, method)(request, metadata=self._metadata(header), timeout=TIMEOUT).msg

    def _metadata(self, header: str | None) -> tuple[tuple[str, str], ...]:
        return (("protocol", "gRPC"), *([] if header is None else [("authorization", header)]))


@pytest.fixture(scope="module")
def client(server: DropIn) -> Iterator[Client]:
    targets = [f"127.0.0.1:{server.ports[f'grpc_{api}']}" for api in ("inference", "management")]
    with grpc.insecure_channel(targets[0]) as inference, grpc.insecure_channel(targets[1]) as management:
        yield Client(server, inference, management)


def test_grpc_takes_each_ports_key(client: Client) -> None:
    assert client.predict(bearer(client.server, "inference")["Authorization"]) == b"OK"
    header = bearer(client.server, "management")["Authorization"]
    assert json.loads(client.manage(header, "DescribeModel", model_name="noop"))[0]["modelName"] == "noop"


@pytest.mark.parametrize("given", [None, "", "Bearer wrong", "Basic {key}", "other", "API"])
def test_grpc_without_the_ports_key_is_denied(client: Client, given: str | None) -> None:
    for api, call in (
        ("inference", lambda header: client.predict(header)),
        ("management", lambda header: client.manage(header, "ListModels", limit=1)),
    ):
        header = given
        if given in ("other", "API"):
            other = "inference" if api == "management" else "management"
            header = bearer(client.server, other if given == "other" else "API")["Authorization"]
        elif given:
            header = given.format(key=keys(client.server)[api]["key"])
        assert refusal(lambda call=call, header=header: call(header)) == ("PERMISSION_DENIED", REFUSED)


def test_grpc_keeps_the_models_of_a_closed_model_api(client: Client) -> None:
    header = bearer(client.server, "management")["Authorization"]
    for method, fields in (
        ("RegisterModel", {"url": "klass.mar"}),
        ("UnregisterModel", {"model_name": "noop"}),
    ):
        code, details = refusal(lambda method=method, fields=fields: client.manage(header, method, **fields))
        assert (code, details.split("\n")[0]) == ("PERMISSION_DENIED", "Model API disabled")
    said = client.manage(header, "ScaleWorker", model_name="noop", min_worker=1)
    assert said == "Processing worker updates..."
    assert client.manage(header, "SetDefault", model_name="noop", model_version="1.11").startswith("Default version")
    assert [one["modelName"] for one in json.loads(client.manage(header, "ListModels", limit=9))["models"]] == ["noop"]
