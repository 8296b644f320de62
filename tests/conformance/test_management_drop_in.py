"""A script written for TorchServe's management API, run against the ``torchserve`` profile: one server, step by step.

The steps are the kinds of call that TorchServe's own collections make, in an order in which each depends on those
before. Statuses and texts are TorchServe 0.12's.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.server import LiveServer, running

PROFILE = {"PROFILE": "torchserve", "AUTH_TOKENS": "false", "MODELS_MODEL_API": "true", "MODELS_SNAPSHOTS": "false"}
OK = "def handle(data, context):\n    return data and ['OK'] * len(data)\n"
FAILS = "def handle(data, context):\n    raise {}('no')\n"
WORKING = "Processing worker updates..."
BAD, MISSING, EXISTS = "BadRequestException", "ModelNotFoundException", "InternalServerException"
VERSION, DOWNLOAD, RANGE = "ModelVersionNotFoundException", "DownloadArchiveException", "IndexOutOfBoundsException"
LESS = "max_worker cannot be less than min_worker."
ADD = "Use scale workers API to add workers for the model."
FAILED = "Failed to start workers for model"


def archive(folder: Path, name: str, source: str = OK, version: str = "1.0", *, file: str = "") -> Path:
    path = folder / (file or f"{name}.mar")
    model = {"modelName": name, "handler": f"{name}_h.py", "modelVersion": version}
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"{name}_h.py", source)
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))
    return path


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def files(folder: Path) -> Iterator[str]:
    """The URL of a web server with the files of ``folder``."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


STEPS: list[tuple[str, str, int, str]] = [  # method, path, status, the text or the type and text of an error
    ("POST", "/models?url=a.mar", 200, f'Model "a" Version: 1.0 registered with 0 initial workers. {ADD}'),
    ("POST", "/models?url=a.mar", 409, "ConflictStatusException Model version 1.0 is already registered for model a"),
    ("POST", "/models?url={web}/a.mar", 500, f"{EXISTS} Model file already exists a.mar"),
    ("POST", "/models?url={file}/store/a.mar", 500, f"{EXISTS} Model file already exists a.mar"),
    ("POST", "/models", 400, f"{BAD} Parameter url is required."),
    ("post", "/models?url=", 404, f"{MISSING} empty url"),
    ("POST", "/models?url=a.mar&runtime=python4", 400, f"{BAD} Invalid RuntimeType value: python4"),
    ("POST", "/models?url=nope.mar", 404, f"{MISSING} Model not found at: nope.mar"),
    ("POST", "/models?url=../a.mar", 404, f"{MISSING} Relative path is not allowed in url: ../a.mar"),
    ("POST", "/models?url={web}/nope.mar", 400, f"{DOWNLOAD} Failed to download archive from: {{web}}/nope.mar"),
    ("POST", "/models?url=http://localhost:x", 400, f"{DOWNLOAD} Failed to download archive from: http://localhost:x"),
    ("POST", "/models?url={file}/no.mar", 400, f"{DOWNLOAD} Failed to download archive from: {{file}}/no.mar"),
    ("DELETE", "/models/a", 200, 'Model "a" unregistered'),
    ("DELETE", "/models/a", 404, f"{MISSING} Model not found: a"),
    ("POST", "/models?url=a.mar&initial_workers=1", 200, 'Model "a" Version: 1.0 registered with 1 initial workers'),
    ("PUT", "/models/a?min_worker=2&synchronous=true", 200, "Workers scaled to 2 for model: a"),
    ("PUT", "/models/a/1.0?min_worker=1&synchronous=true", 200, "Workers scaled to 1 for model: a, version: 1.0"),
    ("PUT", "/models/a?min_worker=1&timeout=-1&number_gpu=x", 202, WORKING),
    ("PUT", "/models/a/9?min_worker=1", 404, f"{VERSION} Model version: 9 does not exist for model: a"),
    ("PUT", "/models/x?min_worker=1", 404, f"{MISSING} Model not found: x"),
    ("PUT", "/models/a?min_worker=3&max_worker=2", 400, f"{BAD} {LESS}"),
    ("PUT", "/models/a?max_worker=-1", 400, f"{BAD} {LESS}"),
    ("PUT", "/models/a?min_worker=-1", 500, f"{RANGE} Index -1 out of bounds for length 0"),
    ("POST", "/models?url=a2.mar", 200, f'Model "a" Version: 2.0 registered with 0 initial workers. {ADD}'),
    ("PUT", "/models/a/9/set-default", 404, f"{VERSION} Model version 9 does not exist for model a"),
    ("PUT", "/models/a/2.0/set-default", 200, 'Default version successfully updated for model "a" to "2.0"'),
    ("DELETE", "/models/a/2.0", 403, "InvalidModelVersionException Cannot remove default version for model a"),
    ("DELETE", "/models/a/9", 404, f"{VERSION} Model version: 9 does not exist for model: a"),
    ("DELETE", "/models/a/1.0/?synchronous=true", 200, 'Model "a" unregistered'),
    ("POST", "/models?url=a.mar&model_name=n&startup_timeout=0&initial_workers=2", 500, f"{EXISTS} {FAILED} n "),
    ("POST", "/models?url=a.mar&model_name=n&synchronous=false&initial_workers=1", 202, WORKING),
    ("POST", "/models?url=a.mar&model_name=h&handler=nope", 200, 'Model "h" Version: 1.0 registered with 0 '),
    ("PUT", "/models/h?synchronous=true", 500, f"{EXISTS} {FAILED} h version: null"),
    ("POST", "/models?url=memory.mar&initial_workers=1", 507, f"{EXISTS} {FAILED} memory version: 1.0"),
    ("POST", "/models?url=junk.mar", 400, "InvalidModelException junk.mar is not a model archive"),
    ("POST", "/models?url={web}/away.mar", 200, f'Model "away" Version: 1.0 registered with 0 initial workers. {ADD}'),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``store`` and ``web`` with archives."""
    folder = tmp_path_factory.mktemp("place")
    store, web = folder / "store", folder / "web"
    store.mkdir()
    web.mkdir()
    archive(store, "a")
    archive(store, "a", version="2.0", file="a2.mar")
    archive(store, "memory", FAILS.format("MemoryError"))
    (store / "junk.mar").write_bytes(b"junk" * 20)
    archive(web, "a")
    archive(web, "away")
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[LiveServer]:
    with running(place / "run", settings=PROFILE, store=place / "store") as live:
        yield live


def said(server: LiveServer, method: str, path: str) -> tuple[int, str]:
    reply = server.request(method.upper(), path, api="management")
    value: Any = json.loads(reply.body)
    return reply.status, value["status"] if "status" in value else f"{value['type']} {value['message']}"


def test_a_script_of_torchserves_meets_another_answer(server: LiveServer, place: Path) -> None:
    with files(place / "web") as web:
        known = {"web": web, "file": f"file://{place}"}
        for method, path, status, text in STEPS:
            answer = said(server, method, quote(path.format(**known), safe="/:?&=,"))
            wanted = text.format(**known)
            assert (answer[0], answer[1][: len(wanted)]) == (status, wanted), (
                f"{method} {path}\n{server.log_text()[-4000:]}"
            )
    assert (place / "store" / "away.mar").exists()
    assert said(server, "DELETE", "/models/away") == (200, 'Model "away" unregistered')
    assert not (place / "store" / "away.mar").exists()  # it came by URL
    assert (place / "store" / "a.mar").exists()


def test_pages_of_the_list_are_others(server: LiveServer) -> None:
    for query in ("limit=-1", "limit=12", "next_page_token=-1", "limit=x&next_page_token=y", ""):
        page = server.manage("GET", f"/models?{query}")
        assert [model["modelName"] for model in page["models"]] == ["a", "h", "n"], query
    assert server.manage("GET", "/models?limit=0") == {"nextPageToken": "0", "models": []}


def test_a_worker_is_described_otherwise(server: LiveServer) -> None:
    server.wait_for(lambda: server.describe("n")["workers"][0]["status"] == "READY")
    model = server.describe("n")
    worker = model["workers"][0]
    assert list(worker)[:7] == ["id", "startTime", "status", "memoryUsage", "pid", "gpu", "gpuUsage"]
    assert re.fullmatch(r"90\d\d", worker["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", worker["startTime"])
    assert (worker["gpu"], worker["gpuUsage"]) == (False, "N/A")
    assert (model["minWorkers"], model["maxWorkers"], model["loadedAtStartup"]) == (1, 1, False)
    assert model["jobQueueStatus"] == {"remainingCapacity": 100, "pendingRequests": 0}


def test_headers_are_not_torchserves(server: LiveServer) -> None:
    for path, connection in (("/models", "keep-alive"), ("/models/none", "close")):
        reply = server.request("GET", path, api="management")
        found = {name.lower(): value for name, value in dict(reply.headers).items()}
        assert found.pop("content-length") == str(len(reply.body))
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}", found.pop("x-request-id"))
        assert found == {
            "content-type": "application/json",
            "pragma": "no-cache",
            "cache-control": "no-cache; no-store, must-revalidate, private",
            "expires": "Thu, 01 Jan 1970 00:00:00 UTC",
            "connection": connection,
        }
