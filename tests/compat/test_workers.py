"""What handlers and requests see of workers: surroundings, streams, time limits, deaths, tickets and sequences."""

from __future__ import annotations

import http.client
import json
import threading
import time

import pytest
from support.drop_in import DropIn, archive
from support.server import Reply

SURROUNDINGS = """
import json, os, sys
from ts.context import Context

def handle(data, context):
    if data is None:
        return None
    properties = dict(context.system_properties)
    folder = properties.pop("model_dir")
    return [json.dumps({
        "properties": properties,
        "cwd": os.path.samefile(os.getcwd(), folder),
        "path": os.path.samefile(os.environ["PYTHONPATH"].split(os.pathsep)[0], folder),
        "environment": {name: os.environ.get(name) for name in
                        ("TS_DECODE_INPUT_REQUEST", "TS_IPEX_ENABLE", "TS_IPEX_GPU_ENABLE", "SECRET", "SHOWN")},
        "context": isinstance(context, Context),
        "model": [context.model_name, context.manifest["model"]["handler"], context.model_yaml_config],
        "ids": [len(context.get_request_id(0)), list(context.request_ids)],
        "sequence": [context.get_sequence_id(0), context.header_key_sequence_id, context.stopping_criteria],
        "reply": [context.get_response_content_type(0), context.get_response_status(0)[0],
                  context.get_response_headers(0)],
        "header": [context.get_request_header(0, name) for name in ("x-test", "X-Test", "nope")],
    })]
"""
BEHAVES = """
import os, time
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    word, _, seconds = bytes(data[0].get("body") or data[0].get("data")).decode().partition(" ")
    if word == "die":
        time.sleep(0.5)
        os._exit(7)
    if word == "sleep":
        time.sleep(float(seconds))
    if word in ("stream", "break"):
        for piece in ("a", "b", "c"):
            time.sleep(float(seconds))
            send_intermediate_predict_response([piece], context.request_ids, "Intermediate", 200, context)
    if word == "break":
        raise ValueError("in the middle")
    return ["end"]
"""
STATE = """
def handle(data, context):
    return None if data is None else [context.get_sequence_id(i) for i in range(len(data))]
"""
SEQUENCES = """
minWorkers: 1
maxWorkers: 1
batchSize: 1
sequenceBatching: true
maxNumSequence: 1
sequenceMaxIdleMSec: 1500
"""


@pytest.fixture(scope="module")
def server(start) -> DropIn:
    live: DropIn = start({"blacklist_env_vars": "SECRET"}, environ={"SECRET": "1", "SHOWN": "2"})
    archive(live.store, "surroundings", SURROUNDINGS)
    for name, source, config in (
        ("behaves", BEHAVES, "minWorkers: 1\nmaxWorkers: 1\nresponseTimeout: 2\n"),
        ("ticket", BEHAVES, "minWorkers: 1\nmaxWorkers: 1\nuseJobTicket: true\n"),
        ("state", STATE, SEQUENCES),
    ):
        more = {"model": {"configFile": "model-config.yaml"}, "model-config__yaml": config}
        archive(live.store, name, source, **more)
    for name in ("surroundings", "behaves", "ticket", "state"):
        reply = live.manage("POST", f"/models?url={name}.mar&initial_workers=1&synchronous=true")
        assert reply.status == 200, (reply, live.log.read_text())
    return live


def together(server: DropIn, *requests: tuple[str, str], gap: float = 0.2) -> list[Reply]:
    """The answers to (model, body) requests that begin ``gap`` seconds apart, whichever is first to come."""
    replies: dict[int, Reply] = {}

    def ask(at: int) -> None:
        replies[at] = server.ask("POST", f"/predictions/{requests[at][0]}", requests[at][1])

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(requests))]
    for thread in threads:
        thread.start()
        time.sleep(gap)
    for thread in threads:
        thread.join()
    return [replies[at] for at in range(len(requests))]


def test_a_handler_finds_torchserves_surroundings(server: DropIn) -> None:
    reply = server.ask("POST", "/predictions/surroundings", b"x", {"x-test": "1"})
    assert json.loads(reply.body) == {
        "properties": {
            "gpu_id": None,
            "batch_size": 1,
            "server_name": "MMS",
            "server_version": "0.12.0",
            "limit_max_image_pixels": True,
        },
        "cwd": True,
        "path": True,
        "environment": {
            "TS_DECODE_INPUT_REQUEST": "true",
            "TS_IPEX_ENABLE": "false",
            "TS_IPEX_GPU_ENABLE": "false",
            "SECRET": None,
            "SHOWN": "2",
        },
        "context": True,
        "model": ["surroundings", "surroundings_handler.py", {}],
        "ids": [36, [0]],
        "sequence": [None, "ts_request_sequence_id", None],
        "reply": [None, 200, {}],
        "header": ["1", None, None],
    }


def test_a_stream_says_so_and_has_each_piece_its_own_time(server: DropIn) -> None:
    """Three pieces at 0.9 s take longer than the response timeout of 2 s."""
    reply = server.ask("POST", "/predictions/behaves", b"stream 0.9")
    assert (reply.status, reply.body) == (200, b"abcend")
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.headers["ts_stream_next"] == "true"
    assert "content-length" not in reply.headers


def test_a_stream_that_breaks_is_cut_and_not_ended(server: DropIn) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        server.ask("POST", "/predictions/behaves", b"break 0")
    assert server.ask("POST", "/predictions/behaves", b"x").body == b"end"


def test_what_waits_behind_a_death_is_answered_by_the_next_worker(server: DropIn) -> None:
    died, waited = together(server, ("behaves", "die"), ("behaves", "x"))
    assert (died.status, died.json()["message"]) == (500, "Worker died.")
    assert died.json()["type"] == "InternalServerException"
    assert (waited.status, waited.body) == (200, b"end")


def test_a_handler_that_takes_too_long_is_a_dead_worker(server: DropIn) -> None:
    slow, waited = together(server, ("behaves", "sleep 30"), ("behaves", "x"))
    assert (slow.status, slow.json()["message"]) == (500, "Worker died.")
    assert (waited.status, waited.body) == (200, b"end")


def test_without_a_free_worker_there_is_no_job_ticket(server: DropIn) -> None:
    busy, refused = together(server, ("ticket", "sleep 1.5"), ("ticket", "x"), gap=0.5)
    assert (busy.status, busy.body) == (200, b"end")
    assert (refused.status, refused.json()["type"]) == (503, "ServiceUnavailableException")
    assert 'Model "ticket" has no worker to serve inference request.' in refused.json()["message"]
    time.sleep(0.2)
    assert server.ask("POST", "/predictions/ticket", b"x").body == b"end"


def test_a_sequence_keeps_its_place_until_it_is_idle(server: DropIn) -> None:
    def say(sequence: str) -> Reply:
        return server.ask("POST", "/predictions/state", b"x", {"ts_request_sequence_id": sequence})

    assert [say("one").body, say("one").body] == [b"one", b"one"]
    assert say("two").status == 503
    time.sleep(3)
    assert say("two").body == b"two"
    time.sleep(3)
    assert server.ask("POST", "/predictions/state", b"x").body.startswith(b"ts-seq-")
