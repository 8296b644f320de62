"""What management clients meet beside the usual calls: documents, odd values, packages of a model, and gRPC's codes."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.drop_in import NOOP, DropIn, archive
from support.grpc_client import TIMEOUT, refusal

from mlserve.protocols import openapi_torchserve as documents
from mlserve.rpc.generated import management_pb2, management_pb2_grpc

NOT_FOUND = "Requested resource is not found, please refer to API document."
NOT_ALLOWED = "Requested method is not allowed, please refer to API document."
MORE = "Use scale workers API to add workers for the model."
FAILED = "Failed to start workers for model {} version: 1.11"
SLOW = "import time\ntime.sleep(3)\n" + NOOP
BROKEN = "def handle(data, context):\n    raise ValueError('broken')\n"
PACKAGED = "import fits_exactly\n" + NOOP.replace('"OK"', "fits_exactly.WORD")


@pytest.fixture(scope="module")
def server(start) -> DropIn:
    live = start({"unregister_model_timeout": 0, "install_py_dep_per_model": "true"})
    archive(live.store, "slow", SLOW)
    archive(live.store, "broken", BROKEN)
    assert live.manage("POST", "/models?url=noop.mar&initial_workers=0").status == 200
    return live


@pytest.fixture(scope="module")
def grpc_call(server: DropIn) -> Iterator[Callable[..., str]]:
    """``grpc_call("ScaleWorker", model_name="m")`` returns the answer's text."""
    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc_management']}") as channel:
        stub = management_pb2_grpc.ManagementAPIsServiceStub(channel)

        def call(method: str, **fields: Any) -> str:
            return getattr(stub, method)(getattr(management_pb2, f"{method}Request")(**fields), timeout=TIMEOUT).msg

        yield call


def without_prose(value: Any) -> Any:
    """``value`` with every description emptied: the words are each server's own, the structure is not."""
    if isinstance(value, dict):
        return {
            key: "" if key == "description" and isinstance(item, str) else without_prose(item)
            for key, item in value.items()
        }
    return [without_prose(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("api", "method", "path", "document"),
    [
        ("inference", "OPTIONS", "/", documents.inference_api()),
        ("inference", "GET", "/api-description", documents.inference_api()),
        ("inference", "OPTIONS", "/predictions/noop", documents.predict_api("noop")),
        ("management", "OPTIONS", "/", documents.management_api()),
        ("management", "GET", "/api-description", documents.management_api()),
        ("management", "OPTIONS", "/models/noop", documents.model_management_api("noop")),
        ("management", "OPTIONS", "/models/noop/1.11", documents.model_management_api("noop")),
        ("metrics", "OPTIONS", "/", documents.metrics_api()),
        ("metrics", "GET", "/api-description", documents.metrics_api()),
    ],
)
def test_an_api_describes_itself(server: DropIn, api: str, method: str, path: str, document: Any) -> None:
    reply = server.ask(method, path, api=api)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert json.dumps(without_prose(reply.json())) == json.dumps(without_prose(document))


@pytest.mark.parametrize(
    ("method", "path", "status", "name", "message"),
    [
        ("OPTIONS", "/models/none", 404, "ModelNotFound", "Model not found: none"),
        ("OPTIONS", "/models", 405, "MethodNotAllowed", NOT_ALLOWED),
        ("OPTIONS", "/nowhere", 404, "ResourceNotFound", NOT_FOUND),
        ("GET", "/", 405, "MethodNotAllowed", NOT_ALLOWED),
        ("DELETE", "/models", 405, "MethodNotAllowed", NOT_ALLOWED),
        ("PATCH", "/models/noop", 405, "MethodNotAllowed", NOT_ALLOWED),
        ("POST", "/v1/models/noop", 405, "MethodNotAllowed", NOT_ALLOWED),
        ("GET", "/v1/models", 404, "ResourceNotFound", NOT_FOUND),
        ("GET", "/ping", 404, "ResourceNotFound", NOT_FOUND),
        ("POST", "/predictions/noop", 404, "ResourceNotFound", NOT_FOUND),
        ("GET", "/metrics", 404, "ResourceNotFound", NOT_FOUND),
        ("GET", "/models/none/all", 404, "ModelNotFound", "Model not found: none"),
        ("POST", "/models?url=noop.mar&runtime=", 400, "BadRequest", "Invalid RuntimeType value: "),
        ("POST", "/models?url=/nowhere/x.mar", 404, "ModelNotFound", "Model not found at: /nowhere/x.mar"),
        ("POST", "/models?url=..", 404, "ModelNotFound", "Relative path is not allowed in url: .."),
        ("POST", "/models?url=s3://b/x.mar", 404, "ModelNotFound", None),
        ("POST", "/models?url=ftp://127.0.0.1/x.mar", 404, "ModelNotFound", None),
        ("POST", "/models?url=http://localhost:aaaa", 400, "DownloadArchive", None),
        ("POST", "/models?url=noop.mar&initial_workers=3&startup_timeout=0&model_name=st", 500, "InternalServer",
         FAILED.format("st")),
        ("PUT", "/models/noop?synchronous=true&model_version=9", 404, "ModelVersionNotFound",
         "Model version: 9 does not exist for model: noop"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_in_torchserves_words(
    server: DropIn, method: str, path: str, status: int, name: str, message: str | None
) -> None:
    reply = server.manage(method, path)
    assert (reply.status, reply.error()[:2]) == (status, (status, f"{name}Exception"))
    assert message in (None, reply.error()[2])


@pytest.mark.parametrize("path", ["/models/noop/", "/models/noop/1.11/", "/models/noop/1.11/set-default"])
def test_a_description_is_found_under_odd_paths_too(server: DropIn, path: str) -> None:
    assert server.manage("GET", path).json()[0]["modelVersion"] == "1.11"


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("batch_size=2&batch_size=5", (2, 100, 120, 120)),
        ("batch_size=%203&max_batch_delay=", (1, 100, 120, 120)),
        ("batch_size=4&max_batch_delay=0&response_timeout=7&startup_timeout=9", (4, 0, 7, 9)),
        ("response_timeout=0&startup_timeout=0", (1, 100, 0, 0)),
        ("batch_size=99999999999", (1, 100, 120, 120)),
    ],
)
def test_numbers_without_sense_count_as_not_given(server: DropIn, query: str, numbers: tuple[int, ...]) -> None:
    said = server.status("POST", f"/models?url=noop.mar&model_name=numbers&initial_workers=0&{query}")
    assert said == f'Model "numbers" Version: 1.11 registered with 0 initial workers. {MORE}'
    (model,) = server.manage("GET", "/models/numbers").json()
    shown = tuple(model[key] for key in ("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout"))
    server.status("DELETE", "/models/numbers")
    assert shown == numbers


def test_numbers_out_of_range_count_as_not_given(server: DropIn, differs: Callable[[str], None]) -> None:
    query = "batch_size=-3&max_batch_delay=-1&response_timeout=-5"
    server.status("POST", f"/models?url=noop.mar&model_name=low&initial_workers=0&{query}")
    (model,) = server.manage("GET", "/models/low").json()
    server.status("DELETE", "/models/low")
    differs("numbers-out-of-range")
    assert [model[key] for key in ("batchSize", "maxBatchDelay", "responseTimeout")] == [1, 100, 120]


@pytest.mark.parametrize("value", ["x", 1.5])
def test_a_json_number_without_sense_is_refused(server: DropIn, value: Any) -> None:
    body = json.dumps({"url": "noop.mar", "model_name": "odd", "initial_workers": value, "max_batch_delay": 5})
    reply = server.manage("POST", "/models", body, Content_Type="application/json")
    assert (reply.status, reply.error()[:2]) == (500, (500, "JsonSyntaxException"))
    assert server.manage("GET", "/models/odd").status == 404


def test_a_body_that_is_not_declared_as_json_counts_for_nothing(server: DropIn) -> None:
    for body, kind in (
        ('{"url": "noop.mar"}', "text/plain"),
        ("url=noop.mar", "application/x-www-form-urlencoded"),
    ):
        reply = server.manage("POST", "/models", body, Content_Type=kind)
        assert (reply.status, reply.error()[2]) == (400, "Parameter url is required.")


def test_a_model_without_workers_registers_at_once_even_if_asynchronously(server: DropIn) -> None:
    reply = server.manage("POST", "/models?url=noop.mar&model_name=none0&synchronous=false&initial_workers=0")
    assert reply.status == 200
    assert reply.json()["status"].startswith('Model "none0" Version: 1.11 registered with 0 initial workers.')
    server.status("DELETE", "/models/none0")


def test_a_model_is_ready_while_it_has_workers(server: DropIn) -> None:
    assert server.manage("GET", "/v1/models/noop").json() == {"name": "noop", "ready": False}
    server.status("POST", "/models?url=klass.mar&model_name=works&initial_workers=1")
    for path in ("/v1/models/works", "/v1/models/works/"):
        assert server.manage("GET", path).json() == {"name": "works", "ready": True}
    server.manage("PUT", "/models/works?min_worker=0&synchronous=true")  # 408 there: no time to end workers either
    until = time.monotonic() + 10
    while server.manage("GET", "/v1/models/works").json() != {"name": "works", "ready": False}:
        assert time.monotonic() < until
        time.sleep(0.05)
    server.status("DELETE", "/models/works")


def test_no_time_to_end_workers_fails_the_first_try(server: DropIn) -> None:
    server.status("POST", "/models?url=noop.mar&model_name=busy&initial_workers=1")
    reply = server.manage("DELETE", "/models/busy")
    message = "Timed out while cleaning resources: busy"
    assert (reply.status, reply.error()) == (408, (408, "RequestTimeoutException", message))
    assert server.status("DELETE", "/models/busy") == 'Model "busy" unregistered'


def test_a_worker_that_takes_too_long_fails_the_registration(server: DropIn) -> None:
    reply = server.manage("POST", "/models?url=slow.mar&initial_workers=1&startup_timeout=1")
    message = "Failed to start workers for model slow version: 1.0"
    assert (reply.status, reply.error()) == (500, (500, "InternalServerException", message))


def test_a_model_brings_its_packages(server: DropIn, tmp_path: Path) -> None:
    wheel = tmp_path / "fits_exactly-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("fits_exactly.py", "WORD = 'packaged'\n")
        packed.writestr(
            "fits_exactly-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: fits_exactly\nVersion: 1.0\n"
        )
        packed.writestr(
            "fits_exactly-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        packed.writestr("fits_exactly-1.0.dist-info/RECORD", "")
    archive(server.store, "packaged", PACKAGED, model={"requirementsFile": "needs.txt"}, needs__txt=f"{wheel}\n")
    server.status("POST", "/models?url=packaged.mar&initial_workers=1")
    assert server.ask("POST", "/predictions/packaged", b"x").body == b"packaged"


def test_a_package_that_cannot_be_installed_refuses_the_model(server: DropIn) -> None:
    archive(server.store, "lacks", NOOP, model={"requirementsFile": "needs.txt"}, needs__txt="/nowhere/none.whl\n")
    reply = server.manage("POST", "/models?url=lacks.mar&initial_workers=1")
    assert (reply.status, reply.error()[0]) == (400, 400)
    assert reply.error()[2].startswith("Custom pip package installation failed for model lacks")


@pytest.mark.parametrize(
    ("method", "fields", "code"),
    [
        ("RegisterModel", {"url": "../noop.mar"}, "NOT_FOUND"),
        ("RegisterModel", {"url": "http://127.0.0.1:1/x.mar"}, "INVALID_ARGUMENT"),
        ("RegisterModel", {"url": "broken.mar", "initial_workers": 1, "synchronous": True}, "INTERNAL"),
        ("ScaleWorker", {"model_name": "noop", "model_version": "9", "min_worker": 1}, "NOT_FOUND"),
        ("ScaleWorker", {"model_name": "noop", "min_worker": 2, "max_worker": 1}, "INVALID_ARGUMENT"),
        ("SetDefault", {"model_name": "noop", "model_version": "9"}, "NOT_FOUND"),
        ("SetDefault", {"model_name": "noop"}, "NOT_FOUND"),
        ("DescribeModel", {"model_name": "noop", "model_version": "9"}, "NOT_FOUND"),
        ("DescribeModel", {"model_name": "noop", "customized": True}, "INTERNAL"),
        ("UnregisterModel", {"model_name": "noop", "model_version": "9"}, "NOT_FOUND"),
    ],
)  # fmt: skip
def test_grpc_fails_with_the_code_of_the_rest_status(
    grpc_call: Callable[..., str], method: str, fields: dict[str, Any], code: str
) -> None:
    assert refusal(lambda: grpc_call(method, **fields))[0] == code


def test_grpc_reads_every_field(server: DropIn, grpc_call: Callable[..., str]) -> None:
    fields = {"batch_size": 3, "max_batch_delay": 7, "response_timeout": 5, "startup_timeout": 6}
    said = grpc_call("RegisterModel", url="noop.mar", model_name="fields", synchronous=True, **fields)
    assert said == 'Model "fields" Version: 1.11 registered with 1 initial workers'  # 0 is no number there
    (model,) = json.loads(grpc_call("DescribeModel", model_name="fields", model_version="all"))
    shown = [model[key] for key in ("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")]
    said = grpc_call("ScaleWorker", model_name="fields", min_worker=0, max_worker=2, synchronous=True)
    assert said == "Workers scaled to 1 for model: fields"
    server.manage("DELETE", "/models/fields")  # which has no time to wait for the worker
    grpc_call("UnregisterModel", model_name="fields", model_version="1.11")
    assert shown == list(fields.values())
