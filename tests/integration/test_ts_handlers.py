"""Handler files written for TorchServe, in a real worker, as they are."""

import json
from pathlib import Path

import pytest
from support.worker_driver import Driver, wait_for

from mlserve.wire.frames import Kind, encode_meta, frame, header
from mlserve.wire.payload import BatchMeta, ItemMeta, Load, PartMeta

HERE = Path(__file__).parent / "ts_handlers"


@pytest.fixture
def worker():
    drivers = []

    def start(handler, manifest=None, config=None, **settings):
        drivers.append(Driver())
        driver = drivers[-1]
        driver.sock.settimeout(60)  # torch may have to be read from a cold disk
        assert driver.next()[0] == Kind.HELLO
        manifest = {"model": {"modelName": "m", "modelVersion": "1.0", **(manifest or {})}}
        settings = {"strict_results": True, "isolate_errors": False, **settings}
        driver.send(frame(Kind.LOAD, 0, Load("m", "1.0", str(HERE), handler, manifest, config or {}, **settings)))
        return driver, driver.next()

    yield start
    for driver in drivers:
        driver.close()


def ask(driver, *bodies, explain=False):
    """One JSON request per body; the result's items and the decoded answers."""
    texts = [json.dumps(body).encode() for body in bodies]
    items = [
        ItemMeta(f"r{number}", [PartMeta("body", "application/json", len(text))], [], explain)
        for number, text in enumerate(texts)
    ]
    meta = encode_meta(BatchMeta(items))
    driver.send(header(Kind.BATCH, 1, len(meta), sum(map(len, texts))) + meta + b"".join(texts))
    result, answers = driver.result(1)
    return result, [json.loads(answer) for answer in answers]


def test_a_subclass_of_the_base_handler_serves_an_eager_model(worker):
    pytest.importorskip("torch")
    manifest = {"modelFile": "net.py"}
    driver, (kind, *_, meta, _) = worker("dir/eager.py", manifest, {"handler": {"profile": True}}, handler_times=True)
    assert (kind, meta["entry"]) == (Kind.READY, "eager.Eager")
    result, answers = ask(driver, [1, 2], [3, 4])
    assert answers == [{"cat": 2.0, "dog": 4.0}, {"cat": 6.0, "dog": 8.0}]
    assert [record.name for record in result.metrics] == [
        "ts_handler_preprocess",
        "ts_handler_inference",
        "ts_handler_postprocess",
        "HandlerTime",
        "PredictionTime",
    ]
    assert ask(driver, [1, 2], explain=True)[1] == [{"raw": [1, 2], "target": 0}]


def test_an_envelope_is_taken_off_before_the_handler(worker):
    pytest.importorskip("torch")
    driver, (kind, *_) = worker("base_handler", {"modelFile": "net.py"}, service_envelope="kserve")
    assert kind == Kind.READY
    assert ask(driver, {"instances": [[1, 2], [3, 4]]})[1] == [{"predictions": [[2, 4], [6, 8]]}]


def test_pieces_and_refusals_of_a_function(worker):
    driver, (kind, *_) = worker("streams.py:handle")
    assert kind == Kind.READY
    driver.batch(3, b"a", b"b")
    pieces = [driver.next() for _ in range(4)]
    assert [(kind, meta.index, body) for kind, _, meta, body in pieces] == [
        (Kind.CHUNK, 0, b"r0 "),
        (Kind.CHUNK, 1, b"r1 "),
    ] * 2
    assert driver.result(3)[1] == [b"end", b"end"]
    meta, _ = driver.ask(b"refuse", b"a")
    assert [(item.status, item.message) for item in meta.items] == [(513, "not today")] * 2


def test_micro_batches_answer_in_order(worker):
    pytest.importorskip("torch")
    config = {"micro_batching": {"micro_batch_size": 2, "parallelism": {"preprocess": 2}}}
    driver, (kind, *_) = worker("micro", config=config)
    assert kind == Kind.READY
    assert driver.ask(b"a", b"b", b"c")[1] == [b"A", b"B", b"C"]


def test_the_traceback_of_a_failed_load_is_printed_line_by_line(worker):
    driver, (kind, _, meta, _) = worker("broken")
    assert (kind, meta.kind) == (Kind.FAILED, "handler_failed")
    wait_for(lambda: driver.process.poll() is not None)
    printed = driver.printed()[1]
    for line in ("Traceback (most recent call last):", "in initialize", "self.first()", "in second", "AssertionError"):
        assert any(line in text for text in printed.splitlines()), line
