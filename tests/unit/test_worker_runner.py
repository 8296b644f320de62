"""Every item of a batch gets an ending of its own, whatever the handler does with the others."""

import types

import pytest
from support.worker_rig import Rig

from mlserve.errors import InvalidInput
from mlserve.handler import PredictionError, Response


def echo(data, context):
    return [row["body"] for row in data]


def errors(items):
    return [item.error for item in items]


def bad_item(data, context):
    context.metrics.add_counter("calls", len(data))
    for row in data:
        if row.pop("body") == b"bad":  # takes the row apart, too
            raise ValueError("a bad one")
    return ["fine"] * len(data)


def test_batch_is_handled_in_one_call():
    calls = []
    rig = Rig(lambda data, context: calls.append(len(data)) or echo(data, context))
    items, bodies = rig.ask(b"a", b"b", b"c")
    assert bodies == [b"a", b"b", b"c"]
    assert errors(items) == [""] * 3
    assert calls == [3]


def test_one_bad_item_does_not_fail_its_batch_mates():
    rig = Rig(bad_item)
    items, bodies = rig.ask(b"a", b"bad", b"c")
    assert errors(items) == ["", "handler_failed", ""]
    assert bodies == [b"fine", b"", b"fine"]
    assert items[1].message == "ValueError: a bad one"
    assert "in bad_item" in items[1].detail
    assert [record.value for record in rig.meta.metrics] == [1, 1, 1], "the failed try does not count"


def test_all_fail_together_when_isolation_is_off():
    items, _ = Rig(bad_item, isolate_errors=False).ask(b"a", b"bad")
    assert errors(items) == ["handler_failed"] * 2


def test_single_item_is_not_tried_twice():
    calls = []

    def handle(data, context):
        calls.append(data)
        raise ValueError

    items, _ = Rig(handle).ask(b"a")
    assert errors(items) == ["handler_failed"]
    assert items[0].message == "ValueError"
    assert len(calls) == 1


@pytest.mark.parametrize("isolate", [True, False])
def test_raised_prediction_error_carries_its_status_and_no_traceback(isolate):
    def handle(data, context):
        raise PredictionError(418, "short and stout")

    items, _ = Rig(handle, isolate_errors=isolate).ask(b"a", b"b")
    assert [(item.status, item.message, item.detail) for item in items] == [(418, "short and stout", "")] * 2


def test_torchserves_prediction_exception_is_known_by_its_shape():
    class PredictionException(Exception):
        def __init__(self, message, error_code=500):
            self.message, self.error_code = message, error_code

    def handle(data, context):
        raise PredictionException("no", 422)

    items, _ = Rig(handle).ask(b"a")
    assert (items[0].error, items[0].status, items[0].message) == ("handler_failed", 422, "no")


def test_exception_as_an_element_fails_that_item():
    elements = [PredictionError(404, "not here"), "ok", ValueError("x")]
    items, bodies = Rig(lambda data, context: list(elements)).ask(b"", b"", b"")
    assert [(item.status, item.message) for item in items] == [(404, "not here"), (200, ""), (200, "ValueError: x")]
    assert bodies[1] == b"ok"


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "out_of_memory"),
        (OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate: out of memory"), "out_of_memory"),
        (RuntimeError("CUDA error: invalid argument"), "handler_failed"),
        (InvalidInput("an image, please"), "invalid_input"),
        (RecursionError("deep"), "handler_failed"),
        (GeneratorExit(), "handler_failed"),
    ],
)
def test_exceptions_are_told_apart(error, kind):
    def handle(data, context):
        raise error

    rig = Rig(handle)
    items, _ = rig.ask(b"a")
    assert items[0].error == kind
    assert rig.runner.fatal == ""


def test_lost_device_is_not_tried_again():
    calls = []

    def handle(data, context):
        calls.append(len(data))
        raise RuntimeError("CUDA error: device-side assert triggered")

    rig = Rig(handle)
    items, _ = rig.ask(b"a", b"b", b"c")
    assert errors(items) == ["handler_failed"] * 3
    assert calls == [3]
    assert "device-side assert" in rig.runner.fatal


@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt()])
def test_handler_that_ends_the_process_is_let(error):
    def handle(data, context):
        raise error

    with pytest.raises(type(error)):
        Rig(handle).ask(b"a", b"b")


@pytest.mark.parametrize("output", [("a", "b"), "ab", None, {"a": 1}, iter(["a", "b"])])
def test_answer_that_is_no_list_is_refused_in_words(output):
    items, _ = Rig(lambda data, context: output).ask(b"", b"")
    for item in items:
        assert item.error == "handler_failed"
        assert item.message.startswith("Invalid model predict output: test:handle must return a list")
        assert item.message.endswith(f"returned {type(output).__name__}")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_wrong_number_of_answers_is_refused_with_both_numbers(count):
    items, _ = Rig(lambda data, context: ["x"] * count).ask(b"", b"")
    assert errors(items) == ["handler_failed"] * 2
    assert "number of batch response mismatched" in items[0].message
    assert f"got 2 requests and returned {count} elements" in items[0].message


def test_element_without_an_encoding_fails_alone():
    items, bodies = Rig(lambda data, context: [{1}, "ok"]).ask(b"", b"")
    assert errors(items) == ["handler_failed", ""]
    assert "Unsupported model output data type set" in items[0].message
    assert bodies == [b"", b"ok"]


def test_answer_over_the_limit_fails_alone_and_names_the_setting():
    items, bodies = Rig(echo, max_response_size=3).ask(b"1234", b"123")
    assert errors(items) == ["handler_failed", ""]
    assert "4 bytes, more than server.max_response_size = 3" in items[0].message
    assert bodies == [b"", b"123"]


def test_broken_json_is_refused_before_the_handler_sees_it():
    seen = []

    def handle(data, context):
        seen.append([row["body"] for row in data])
        assert context.request_ids == {0: "r0", 1: "r2"}
        context.set_response_status(201, "Created", idx=1)
        return ["x"] * len(data)

    items, _ = Rig(handle).ask(b"1", b"{", b"2", content_type="application/json")
    assert seen == [[1, 2]]
    assert errors(items) == ["", "invalid_input", ""]
    assert items[1].message.startswith("Request body is not valid JSON")
    assert [item.status for item in items] == [200, 200, 201], "index 1 of the handler is item 2 of the batch"


def test_cancelled_items_are_left_out_and_the_handler_not_called_for_none():
    calls = []
    rig = Rig(lambda data, context: calls.append(len(data)) or echo(data, context))
    items, bodies = rig.ask(b"a", b"b", cancelled=[0])
    assert errors(items) == ["cancelled", ""]
    assert bodies == [b"", b"b"]
    items, _ = rig.ask(b"a", cancelled=[0])
    assert errors(items) == ["cancelled"]
    assert calls == [1]


def test_context_tells_of_cancels_by_the_handlers_index():
    def handle(data, context):
        work.cancelled.add(2)
        return [str(context.is_cancelled(idx)) for idx in range(len(data))]

    rig = Rig(handle)
    work = rig.work(b"a", b"b", b"c")
    work.cancelled.add(0)
    assert [bytes(body) for body in rig.runner.handle(work)[1]] == [b"", b"False", b"True"]


@pytest.mark.parametrize(("infer", "expected"), [(True, "application/json"), (False, "")])
def test_content_type_is_inferred_only_when_asked(infer, expected):
    items, _ = Rig(lambda data, context: [{}], infer_content_type=infer).ask(b"")
    assert items[0].content_type == expected


def test_what_the_handler_sets_for_one_answer_stays_with_it():
    def handle(data, context):
        context.set_response_content_type(0, "image/png")
        context.set_response_header(1, "X-A", 1)
        context.set_response_status(507, "Full", 1)
        return [b"png", "text", Response("r", "text/x", 202, {"x-a": "2"})]

    rig = Rig(handle)
    items, _ = rig.ask(b"", b"", b"")
    assert [(item.content_type, item.status, item.reason, item.headers) for item in items] == [
        ("image/png", 200, "", []),
        ("text/plain; charset=utf-8", 507, "Full", [("X-A", "1")]),
        ("text/x", 202, "", [("x-a", "2")]),
    ]
    rig.runner.entry.call = echo
    assert rig.ask(b"")[0][0].content_type == "application/octet-stream", "nothing is left for the next batch"


def test_response_wins_over_the_context():
    def handle(data, context):
        context.set_response_header(0, "X-A", "context")
        context.set_response_content_type(0, "text/context")
        return [Response({}, "text/response", headers={"x-a": "response"})]

    (item,), _ = Rig(handle).ask(b"")
    assert (item.content_type, item.headers) == ("text/response", [("x-a", "response")])


@pytest.mark.parametrize(
    ("element", "said"),
    [
        (Response("x", headers={"X-A": "1\r\nSet-Cookie: stolen"}), "control character"),
        (Response("x", headers={"X-A\n": "1"}), "control character"),
        (Response("x", headers={"": "1"}), "header"),
        (Response("x", status=99), "status 99"),
        (Response("x", status="200"), "status '200'"),
    ],
)
def test_header_or_status_that_would_break_http_is_refused(element, said):
    (item,), (body,) = Rig(lambda data, context: [element]).ask(b"")
    assert (item.error, body) == ("handler_failed", b"")
    assert said in item.message


def test_phases_of_the_handler_are_reported_and_reset():
    def phased(data, context):
        context.phases.add("preprocess", 1.0)
        context.phases.add("inference", 2.0)
        context.phases.add("postprocess", 3.0)
        return echo(data, context)

    rig = Rig(phased)
    for _ in range(2):
        rig.ask(b"a")
        assert 1.0 <= rig.meta.preprocess < 1.5
        assert rig.meta.inference == 2.0
        assert 3.0 <= rig.meta.postprocess < 3.5
    rig = Rig(echo)
    rig.ask(b"a")
    assert rig.meta.inference > 0


def pieces(*words, then=None):
    yield from words
    if then is not None:
        raise then


def test_pieces_are_sent_in_turn_with_their_content_types():
    def handle(data, context):
        context.set_response_content_type(1, "text/event-stream")
        return [pieces("a", "b"), pieces(b"c"), "whole"]

    rig = Rig(handle)
    items, bodies = rig.ask(b"", b"", b"")
    plain = "text/plain; charset=utf-8"
    assert rig.link.chunks == [(0, b"a", plain), (1, b"c", "text/event-stream"), (0, b"b", plain)]
    assert bodies == [b"", b"", b"whole"]
    assert errors(items) == [""] * 3


@pytest.mark.parametrize("trouble", [pieces("a", then=ValueError("broke")), pieces("a", {1})])
def test_broken_stream_fails_its_item_only(trouble):
    rig = Rig(lambda data, context: [trouble, pieces("x", "y")])
    items, _ = rig.ask(b"", b"")
    assert errors(items) == ["handler_failed", ""]
    assert [body for _, body, _ in rig.link.chunks] == [b"a", b"x", b"y"]
    assert isinstance(trouble, types.GeneratorType)
    assert trouble.gi_frame is None, "the generator is closed"


def test_piece_sent_from_inside_the_handler_goes_before_the_answer():
    def handle(data, context):
        context.send_piece(1, "early")
        return ["a", "b"]

    rig = Rig(handle)
    _, bodies = rig.ask(b"", b"")
    assert [(index, body) for index, body, _ in rig.link.chunks] == [(1, b"early")]
    assert bodies == [b"a", b"b"]
    with pytest.raises(RuntimeError, match="while handle"):
        rig.context.send_piece(0, "late")


def test_batch_with_pieces_sent_is_not_tried_again():
    def handle(data, context):
        context.send_piece(0, "early")
        raise ValueError

    rig = Rig(handle)
    assert errors(rig.ask(b"", b"")[0]) == ["handler_failed"] * 2
    assert len(rig.link.chunks) == 1


@pytest.mark.parametrize("value", [["only one"], "ab", None])
def test_generator_handle_that_yields_no_list_of_the_right_length_is_refused(value):
    items, _ = Rig(lambda data, context: pieces(value)).ask(b"", b"")
    assert errors(items) == ["handler_failed"] * 2


def test_generator_handle_without_pieces_gives_empty_answers():
    items, bodies = Rig(lambda data, context: pieces()).ask(b"", b"")
    assert errors(items) == ["", ""]
    assert bodies == [b"", b""]
