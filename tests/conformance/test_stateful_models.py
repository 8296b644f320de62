"""Sequences, continuous batching, asynchronous handlers and tickets, as clients of a running server meet them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.server import HANDLERS, LiveServer, Reply, running

OWN = Path(__file__).parent / "handlers"
IDLE = 1.0  # seconds

CONFIGS = {
    "sums": (
        OWN / "sessions.py",
        f"maxWorkers: 2\nminWorkers: 2\nbatchSize: 2\nsequenceMaxIdleMSec: {IDLE * 1000:.0f}",
    ),
    "talks": (OWN / "sessions.py", "continuousBatching: true\nsequenceMaxIdleMSec: 60000\nmaxNumSequence: 2"),
    "counts": (HANDLERS / "counts_down.py", "continuousBatching: true\nbatchSize: 4\npause: 0.05"),
    "waits": (HANDLERS / "waits_async.py", "asyncCommunication: true"),
    "tickets": (HANDLERS / "slow.py", "useJobTicket: true\nbatchSize: 4\nmaxBatchDelay: 0"),
    "hurry": (HANDLERS / "slow.py", "clientTimeoutInMills: 200"),
}


@pytest.fixture(scope="module", params=["fast lane", "aiohttp"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    directory = tmp_path_factory.mktemp("stateful")
    for name, (handler, config) in CONFIGS.items():
        model = directory / name
        model.mkdir()
        shutil.copy(handler, model)
        sequences = "sequenceBatching: true\nmaxSequenceJobQueueSize: 5\n" if name in ("sums", "talks") else ""
        (model / "model-config.yaml").write_text(sequences + config)
    settings = {"SERVER_FAST_LANE": str(request.param == "fast lane").lower(), "SERVER_HTTP_STYLE": "torchserve"}
    with running(directory, *CONFIGS, settings=settings, args=["--workers", "1"]) as live:
        yield live


def say(server: LiveServer, model: str, sequence: str, text: str) -> Reply:
    headers = {"ts_request_sequence_id": sequence} if sequence else {}
    return server.request("POST", f"/predictions/{model}", text.encode(), headers)


def test_interleaved_sequences_each_keep_their_worker_and_their_order(server: LiveServer) -> None:
    def talk(sequence: str) -> tuple[str, set[str]]:
        replies = [say(server, "sums", sequence, str(number)) for number in (2, 4, 6, 8)]
        return "".join(reply.body.decode() for reply in replies), {reply.headers["worker"] for reply in replies}

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(talk, ["a", "b", "c", "d"]))
    assert [text for text, _ in told] == ["2 6 12 20 "] * 4
    assert all(len(workers) == 1 for _, workers in told)
    assert len(set.union(*(workers for _, workers in told))) == 2


def test_a_request_without_a_sequence_starts_one_that_its_client_can_go_on_with(server: LiveServer) -> None:
    time.sleep(IDLE + 0.2)  # the sequences of other tests are over
    first = say(server, "sums", "", "2")
    sequence = first.headers["ts_request_sequence_id"]
    assert sequence.startswith("ts-seq-")
    assert first.headers["started"] == "True"
    second = say(server, "sums", sequence, "2")
    assert (second.body, second.headers["started"]) == (b"4 ", "False")


def test_a_client_that_ends_its_sequence_itself_does_not_make_room_before_it_is_idle(server: LiveServer) -> None:
    time.sleep(IDLE + 0.2)  # the sequences of other tests are over
    names = [f"s{number}" for number in range(4)]
    assert [say(server, "sums", name, "2").status for name in names] == [200] * 4
    ended = server.request(
        "POST", "/predictions/sums", b"2", {"ts_request_sequence_id": "s0", "ts_request_sequence_end": "true"}
    )
    assert ended.status == 200
    refused = say(server, "sums", "s4", "2")
    assert (refused.status, refused.error()[1]) == (503, "ServiceUnavailableException")
    assert "If this is a sequence inference, please check if it is closed, or expired" in refused.error()[2]
    time.sleep(IDLE + 0.5)
    assert say(server, "sums", "s4", "2").status == 200


def test_the_handler_ends_a_sequence_and_streams_to_it(server: LiveServer) -> None:
    first = say(server, "talks", "", "3")
    sequence = first.headers["ts_request_sequence_id"]
    assert first.headers["transfer-encoding"] == "chunked"
    assert first.headers["ts_stream_next"] == "true"
    assert first.body == b"3 3 3 "
    other = say(server, "talks", "", "2")
    assert say(server, "talks", "", "2").status == 503  # two are open
    assert say(server, "talks", sequence, "stop").body == b"3 "
    assert say(server, "talks", other.headers["ts_request_sequence_id"], "stop").status == 200
    third = say(server, "talks", "", "2")
    assert third.status == 200
    say(server, "talks", third.headers["ts_request_sequence_id"], "stop")


def test_streams_of_continuous_batching_share_their_steps(server: LiveServer) -> None:
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda text: server.predict("counts", text), [b"9", b"9", b"9"]))
    assert [reply.body.count(b"|") for reply in replies] == [10] * 3
    assert all(b"of 3" in reply.body for reply in replies)


def test_an_asynchronous_worker_answers_in_any_order(server: LiveServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: server.predict("waits", b"meet 8"), range(8)))  # one alone would fail
    assert [reply.body for reply in replies] == [b"meet 8"] * 8
    assert server.predict("waits", b"stream").body == b"0 1 2 "


def test_with_tickets_nobody_waits_behind_another(server: LiveServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        running_one = pool.submit(server.predict, "tickets", b"2")
        time.sleep(0.4)
        refused = server.predict("tickets", b"0.1")
        assert refused.status == 503
        assert "has no worker to serve inference request" in refused.error()[2]
        assert running_one.result().status == 200


def test_a_client_timeout_is_answered(server: LiveServer) -> None:
    reply = server.predict("hurry", b"0.6")
    assert (reply.status, reply.error()[1]) == (504, "RequestTimeoutException")
    server.wait_for(lambda: server.predict("hurry", b"0.0").status == 200, 20)  # the worker is still at it
