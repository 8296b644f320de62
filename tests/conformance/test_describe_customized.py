"""``GET /models/{m}?customized=true``: what a handler says of itself, by the contract's cases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import LiveServer, running

HANDLERS = Path(__file__).parent / "handlers"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    models = [f"{name}={HANDLERS / name}.py" for name in ("customized", "mirror", "outputs")]
    with running(tmp_path_factory.mktemp("customized"), *models) as live:
        yield live


def test_what_the_handler_says_is_added_and_a_handler_that_fails_to_say_it_is_a_500(server: LiveServer) -> None:
    (model,) = server.manage("GET", "/models/customized?customized=true")
    assert model["customizedMetadata"] == {"data1": "1", "data2": "2"}
    assert list(model).index("customizedMetadata") == list(model).index("jobQueueStatus") + 1
    reply = server.request("GET", "/models/customized/1.0?customized=true", api="management")
    code, kind, message = reply.error()
    assert (reply.status, code, kind) == (500, 500, "InternalServerException")
    assert message.startswith("Failed to get customized model matadata.")


def test_it_is_left_out_unless_asked_for_and_for_all_versions(server: LiveServer) -> None:
    assert "customizedMetadata" not in server.describe("mirror")
    assert "customizedMetadata" not in server.manage("GET", "/models/mirror/all?customized=true")[0]


def test_a_handler_that_knows_nothing_of_it_is_asked_by_a_header(server: LiveServer) -> None:
    (model,) = server.manage("GET", "/models/mirror?customized=true")
    assert model["customizedMetadata"]["headers"]["describe"] == "True"


def test_without_a_worker_it_is_a_503(server: LiveServer) -> None:
    server.manage("PUT", "/models/outputs?min_worker=0&synchronous=true")
    reply = server.request("GET", "/models/outputs?customized=true", api="management")
    code, kind, message = reply.error()
    assert (reply.status, code, kind) == (503, 503, "ServiceUnavailableException")
    assert message == (
        'Model "outputs" has no worker to serve describe request. Please use scale workers API to add workers.'
    )
    assert server.request("GET", "/models/outputs", api="management").status == 200
