"""A script of 82 management calls, in order, over REST and then over gRPC: the answer to each is a matter of record."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import grpc
import pytest
from support.drop_in import NOOP, DropIn, archive
from support.grpc_client import TIMEOUT

from mlserve.rpc.generated import management_pb2, management_pb2_grpc

ROWS = """
POST models?url=a.mar&model_name=a                                                  200
POST models?url=b.mar&model_name=b                                                  200
POST models?url=c.mar&model_name=c                                                  200
POST models?url={web}/c.mar&model_name=c                                            500
DELETE models/c                                                                     200
POST models                                                                         400
DELETE models/b                                                                     200
POST models?url=b.mar&model_name=b&handler=invalidHandler                           200
DELETE models/b                                                                     200
POST models?url=b.mar&model_name=b&handler=invalidHandler                           200
PUT models/b?min_worker=1&synchronous=true                                          500
DELETE models/b                                                                     200
GET models/a/all                                                                    200
GET models/a/1.0                                                                    200
GET models/a                                                                        200
DELETE models/a                                                                     200
POST models?url=a.mar&model_name=a&runtime=python4                                  400
GET models?limit=&next_page_token=                                                  200
POST models?url=a.mar&model_name=a                                                  200
PUT models/a?min_worker=1                                                           202
PUT models/a?min_worker=1&synchronous=true                                          200
PUT models/a/1.0?min_worker=1&synchronous=true                                      200
PUT models/a/0.0?min_worker=1&synchronous=true                                      404
PUT models/a?min_worker=1&number_gpu=1                                              202
PUT models/a/1.0/set-default                                                        200
PUT models/a/0.0/set-default                                                        404
PUT models/none/1.0/set-default                                                     404
DELETE models/a                                                                     200
POST models?url=a.mar&model_name=a&handler=serve/ts/torch_handler/image_classifier.py:handle 200
DELETE models/a                                                                     200
POST models?url=a.mar&model_name=a&batch_size=3&initial_workers=3&startup_timeout=0 500
POST models?url=a.mar&model_name=a&startup_timeout=0                                200
DELETE models/a                                                                     200
POST models?url=d.mar&model_name=d&batch_size=2                                     200
DELETE models/d                                                                     200
POST models?url=d.mar&model_name=d&batch_size=dd&initial_workers=1                  200
DELETE models/d                                                                     200
POST models?url=d.mar&model_name=d&batch_size=2&initial_workers=1&max_batch_delay=junk 200
DELETE models/d                                                                     200
POST models?url=a.mar&model_name=a&initial_workers=-1                               200
DELETE models/a                                                                     200
POST models?url=e-18.mar&model_name=e-18&synchronous=true                           200
DELETE models/e-18                                                                  200
POST models?url=e-18.mar&model_name=e-18&synchronous=-1                             200
DELETE models/e-18                                                                  200
POST models?url=e-18.mar&model_name=e-18&synchronous=false                          200
GET models?limit=1                                                                  200
GET models?limit=-1                                                                 200
GET models?limit=1&next_page_token=1                                                200
GET models?limit=1&next_page_token=-1                                               200
PUT models/e-18?number_gpu=10                                                       202
PUT models/e-18?number_gpu=-1                                                       202
PUT models/e-18?min_worker=1&max_worker=1&synchronous=true                          200
PUT models/e-18?min_worker=1&max_worker=1&synchronous=false                         202
PUT models/e-18?timeout=-1                                                          202
PUT models/e-18?timeout=0                                                           202
POST models?url=&model_name=e-18                                                    404
POST models?url={web}/none.mar&model_name=none                                      400
GET models/none                                                                     404
GET models/a/0.0                                                                    404
GET models?next_page_token=12                                                       200
PUT models/e-18?min_worker=1&synchronous=Nan                                        202
PUT models/e-18?min_worker=nan&synchronous=nan                                      202
PUT models/e-18                                                                     202
PUT models/none?min_worker=1                                                        404
PUT models/e-18?min_worker=2&max_worker=1                                           400
PUT models/e-18?min_worker=1                                                        202
PUT models/e-18?min_worker=0                                                        202
PUT models/e-18?min_worker=-1                                                       500
PUT models/e-18?max_worker=-1                                                       400
PUT models/none/1.0/set-default                                                     404
DELETE models/e-18                                                                  200
DELETE models/a/0.0                                                                 404
POST models?url=a.mar&model_name=a                                                  200
DELETE models/a/?synchronous=true                                                   200
POST models?url=a.mar&model_name=a                                                  200
DELETE models/a/?synchronous=nan                                                    200
POST models?url=a.mar&model_name=a                                                  200
DELETE models/a/?timeout=true                                                       200
POST models?url=a.mar&model_name=a                                                  200
DELETE models/a/?timeout=true&synchronous=-1                                        200
DELETE models/none                                                                  404
"""
CALLS = [(method, path, int(status)) for method, path, status in map(str.split, ROWS.strip().splitlines())]
NUMBERS = {
    "min_worker", "max_worker", "initial_workers", "timeout", "number_gpu", "batch_size", "max_batch_delay",
    "startup_timeout", "limit", "next_page_token",
}  # fmt: skip
CODES = {200: "OK", 202: "OK", 400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 500: "INTERNAL"}
UNSAID = "unsaid"  # a query that gRPC's types cannot hold
OVER_GRPC = {
    30: "OK",  # a timeout of 0 is none there, so the model registers
    31: "UNKNOWN",  # for the second time
    35: UNSAID, 36: "NOT_FOUND", 37: UNSAID, 38: "NOT_FOUND", 62: UNSAID,
    56: "INVALID_ARGUMENT",  # an empty url is none
    68: "OK", 69: "OK",  # a number below 0 is none
}  # fmt: skip


@pytest.fixture(scope="module")
def server(start, web: tuple[Path, str]) -> DropIn:
    live: DropIn = start({"default_workers_per_model": 0})
    for name in ("a", "b", "c", "d", "e-18"):
        archive(live.store, name, NOOP)
    archive(web[0], "c", NOOP)
    return live


@pytest.fixture(scope="module")
def rest(server: DropIn, web: tuple[Path, str]) -> list[int]:
    """The statuses of all calls, made in order."""
    return [server.manage(method, "/" + path.format(web=web[1])).status for method, path, _ in CALLS]


@pytest.fixture(scope="module")
def rpc(server: DropIn, rest: list[int], web: tuple[Path, str]) -> list[str]:
    """The codes of all calls over gRPC, made after those over REST, which leave no model behind."""
    assert server.manage("GET", "/models").json() == {"models": []}
    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc_management']}") as channel:
        stub = management_pb2_grpc.ManagementAPIsServiceStub(channel)
        return [say(stub, method, path.format(web=web[1])) for method, path, _ in CALLS]


def say(stub: Any, method: str, path: str) -> str:
    """The code that answers the same call over gRPC."""
    parts = urlsplit(path)
    words = [word for word in parts.path.split("/") if word]
    name = {"POST": "RegisterModel", "DELETE": "UnregisterModel", "PUT": "ScaleWorker"}.get(method, "DescribeModel")
    name = "SetDefault" if words[-1] == "set-default" else "ListModels" if path.startswith("models?l") else name
    name = "ListModels" if path.startswith("models?n") else name
    request = getattr(management_pb2, f"{name}Request")
    fields: dict[str, Any] = dict(zip(("model_name", "model_version"), words[1:3], strict=False))
    for key, value in parse_qsl(parts.query):
        if key in request.DESCRIPTOR.fields_by_name:
            try:
                fields[key] = int(value) if key in NUMBERS else value == "true" if key == "synchronous" else value
            except ValueError:
                return UNSAID
    try:
        getattr(stub, name)(request(**fields), timeout=TIMEOUT)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


@pytest.mark.parametrize("row", range(len(CALLS)), ids=lambda row: f"{row}-{CALLS[row][0]}-{CALLS[row][1]}")
def test_every_call_of_the_script_has_its_status(rest: list[int], row: int) -> None:
    assert rest[row] == CALLS[row][2], CALLS[row]


@pytest.mark.parametrize("row", range(len(CALLS)), ids=lambda row: f"{row}-{CALLS[row][0]}-{CALLS[row][1]}")
def test_every_call_of_the_script_has_its_code_over_grpc(rpc: list[str], row: int) -> None:
    method, path, status = CALLS[row]
    assert rpc[row] == OVER_GRPC.get(row, CODES[status]), (method, path)
