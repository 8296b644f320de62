"""The context answers as TorchServe's does, per index, and forgets everything between batches."""

import pytest

from mlserve.handler import Context, PhaseTimer, PredictionError, RequestInfo


@pytest.fixture
def context():
    context = Context("m", "/models/m", {"model": {}}, 4, 0, {"a": 1})
    context.begin([RequestInfo("first", [(b"X-A", b"1")]), RequestInfo("second", extra={"url_path": "p"})])
    return context


def test_model_and_place_are_where_handlers_look(context):
    assert context.model_name == "m"
    assert context.manifest == {"model": {}}
    assert context.model_yaml_config == {"a": 1}
    assert {key: context.system_properties[key] for key in ("model_dir", "gpu_id", "batch_size", "server_name")} == {
        "model_dir": "/models/m",
        "gpu_id": 0,
        "batch_size": 4,
        "server_name": "MMS",
    }


def test_requests_are_told_apart_by_index(context):
    assert context.request_ids == {0: "first", 1: "second"}
    assert [context.get_request_id(idx) for idx in (0, 1, 2, -1)] == ["first", "second", None, None]
    assert context.get_request_header(0, "X-A") == "1"
    assert context.get_request_header(0, "x-a") is None, "spelling counts, as in TorchServe"
    assert context.get_all_request_header(1) == {"url_path": "p"}


def test_replies_are_kept_by_index(context):
    context.set_response_content_type(1, "text/plain")
    context.set_response_status(404, "gone", 1)
    context.set_response_header(0, "A", "1")
    context.set_response_headers(0, {"B": "2"})
    assert context.get_response_content_type(0) is None
    assert context.get_response_content_type(1) == "text/plain"
    assert [context.get_response_status(idx) for idx in (0, 1)] == [(200, ""), (404, "gone")]
    assert context.get_response_headers(0) == {"A": "1", "B": "2"}
    assert context.get_response_headers(1) == {}


def test_status_can_be_set_for_the_whole_batch(context):
    context.set_all_response_status(503, "busy")
    assert [context.get_response_status(idx) for idx in (0, 1)] == [(503, "busy")] * 2


def test_nothing_of_a_batch_is_left_in_the_next(context):
    context.set_response_status(404)
    context.phases.add("inference", 1.0)
    context.begin([RequestInfo("third")])
    assert context.reply(0) is None
    assert context.phases.inference == 0.0
    assert context.request_ids == {0: "third"}


def test_cancels_and_pieces_are_the_servers_business(context):
    assert not context.is_cancelled(0)
    with pytest.raises(RuntimeError, match="while handle"):
        context.send_piece(0, "x")
    sent = []
    context.begin([RequestInfo("r")], lambda idx: idx == 0, lambda idx, value: sent.append((idx, value)))
    assert context.is_cancelled()
    context.send_piece(0, "x")
    assert sent == [(0, "x")]


def test_unknown_phase_is_an_error():
    with pytest.raises(AttributeError):
        PhaseTimer().add("inferense", 1.0)


@pytest.mark.parametrize("status", [200, 399, 600, 0])
def test_prediction_error_takes_only_error_statuses(status):
    with pytest.raises(ValueError, match="400 to 599"):
        PredictionError(status)
