"""``strict_results``: what TorchServe refuses is refused with its texts, and for the whole batch."""

import pytest

from mlserve.compat.ts.utils.util import PredictionException
from mlserve.errors import ErrorKind
from mlserve.handler import PredictionError
from mlserve.wire.frames import encode_meta
from mlserve.wire.payload import BatchMeta, ItemMeta, Load, PartMeta
from mlserve.worker.context import make_context
from mlserve.worker.loader import Entry
from mlserve.worker.rows import RowDecoder
from mlserve.worker.runner import Runner, Work


def ask(handle, *bodies, **settings):
    settings = {"strict_results": True, "isolate_errors": False, "infer_content_type": False, **settings}
    load = Load("m", "1.0", "", "h", {}, {}, **settings)
    runner = Runner(Entry(handle, "t:h"), make_context(load), load, RowDecoder(load, None), None, lambda value: value)
    items = [ItemMeta(f"r{n}", [PartMeta("body", "", len(body))], []) for n, body in enumerate(bodies)]
    meta, sent = runner.handle(Work(1, encode_meta(BatchMeta(items)), memoryview(b"".join(bodies)), 0.0))
    return meta, [bytes(body) for body in sent]


def raises(error):
    def handle(data, context):
        raise error

    return handle


@pytest.mark.parametrize(
    ("handle", "text"),
    [
        (lambda data, context: ("a", "b"), "Invalid model predict output"),
        (lambda data, context: {"a": 1}, "Invalid model predict output"),
        (lambda data, context: None, "Invalid model predict output"),
        (lambda data, context: ["a"], "number of batch response mismatched"),
        (lambda data, context: ["a", object()], "Unsupported model output data type."),
        (lambda data, context: [{1, 2}, "b"], "Unsupported model output data type."),
        (lambda data, context: [memoryview(b"x"), "b"], "Unsupported model output data type."),
        (raises(KeyError("x")), "Prediction failed"),
    ],
)
def test_a_result_of_the_wrong_kind_fails_every_request(handle, text):
    meta, _ = ask(handle, b"1", b"2")
    assert [(item.error, item.message, item.status) for item in meta.items] == [
        (ErrorKind.HANDLER_FAILED.value, text, 200)
    ] * 2


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED")])
def test_memory_is_told_from_other_failures(error):
    meta, _ = ask(raises(error), b"1")
    assert [(item.error, item.message) for item in meta.items] == [(ErrorKind.OUT_OF_MEMORY.value, "Out of resources")]


@pytest.mark.parametrize(
    ("error", "status"), [(PredictionException("naming clash", 513), 513), (PredictionError(418, "naming clash"), 418)]
)
def test_a_refusal_keeps_its_own_words(error, status):
    meta, _ = ask(raises(error), b"1", b"2")
    assert [(item.status, item.message) for item in meta.items] == [(status, "naming clash")] * 2


def test_the_bytes_are_those_of_torchserve():
    values = ["é", b"\x00", bytearray(b"x"), {"é": [1.5, None]}, [], 3, True, None, float("nan")]
    _, bodies = ask(lambda data, context: values, *[b""] * len(values))
    assert bodies == [
        "é".encode(),
        b"\x00",
        b"x",
        b'{\n  "\\u00e9": [\n    1.5,\n    null\n  ]\n}',
        b"[]",
        b"3",
        b"true",
        b"null",
        b"NaN",
    ]


def test_an_array_is_refused_as_torchserve_does_and_taken_otherwise():
    np = pytest.importorskip("numpy")
    strict, _ = ask(lambda data, context: [{"a": np.arange(2)}], b"")
    assert strict.items[0].message == "Unsupported model output data type."
    _, bodies = ask(lambda data, context: [{"a": np.arange(2)}], b"", strict_results=False)
    assert bodies == [b'{\n  "a": [\n    0,\n    1\n  ]\n}']


def test_times_are_reported_only_where_they_are_wanted():
    wanted, _ = ask(lambda data, context: ["a"], b"", handler_times=True)
    assert [record.name for record in wanted.metrics] == ["PredictionTime"]
    assert wanted.metrics[0].unit == "Milliseconds"
    assert ask(lambda data, context: ["a"], b"")[0].metrics == []
    assert ask(raises(ValueError()), b"", handler_times=True)[0].metrics == []
