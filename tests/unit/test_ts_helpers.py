"""The small helpers behind ``ts.*`` do what handlers lean on."""

import json
import types

import pytest

from mlserve import handler
from mlserve.compat.ts.context import Context, RequestProcessor
from mlserve.compat.ts.handler_utils.utils import import_class, send_intermediate_predict_response
from mlserve.compat.ts.service import PredictionException
from mlserve.compat.ts.utils import util
from mlserve.worker.failures import refusal


def test_context_takes_the_arguments_of_torchserve():
    context = Context("m", "/d", {"model": {}}, 4, 1, "0.12.0", False, "metrics", {"a": 1})
    assert context.system_properties == {
        "model_dir": "/d",
        "gpu_id": 1,
        "batch_size": 4,
        "server_name": "MMS",
        "server_version": "0.12.0",
        "limit_max_image_pixels": False,
    }
    assert (context.metrics, context.model_yaml_config) == ("metrics", {"a": 1})
    assert Context(
        model_name="m", model_dir="", manifest=None, batch_size=1, gpu=None, mms_version="1"
    ).system_properties == {
        "model_dir": "",
        "gpu_id": None,
        "batch_size": 1,
        "server_name": "MMS",
        "server_version": "1",
        "limit_max_image_pixels": True,
    }


def test_the_context_of_a_worker_is_a_context():
    assert isinstance(handler.Context("m", ""), Context)
    assert not isinstance({}, Context)


def test_requests_set_by_a_test_are_those_the_handler_sees():
    context = Context("m", "", {}, 2, None, "1")
    processors = [RequestProcessor({"explain": "True", "ts_request_sequence_id": "s"}), RequestProcessor({})]
    context.request_ids, context.request_processor = {0: "a", 1: "b"}, processors
    assert [context.get_request_id(index) for index in (0, 1, 2)] == ["a", "b", None]
    assert context.get_request_header(0, "explain") == "True"
    assert [context.get_sequence_id(index) for index in (0, 1)] == ["s", None]
    context.set_response_status(404, "gone", 1)
    context.set_all_response_status(201)
    context.set_response_header(0, "X", "1")
    assert processors[0].get_response_headers() == {"X": "1"}
    assert processors[0].get_response_header("X") == "1"
    assert (processors[1].get_response_status_code(), processors[1].get_response_status_phrase()) == (201, "")
    assert context.reply(0).headers == {"X": "1"}, "the server reads the same"


def test_what_a_request_processor_sets_is_answered():
    context = handler.Context("m", "")
    context.begin([handler.RequestInfo("r", [(b"A", b"1")])])
    processor = context.request_processor[0]
    assert processor.get_request_properties() == {"A": "1"}
    processor.report_status(418, "teapot")
    processor.add_response_property("Content-Type", "text/x")
    assert context.get_response_status(0) == (418, "teapot")
    assert context.get_response_content_type(0) == "text/x"
    assert context.get_response_headers(0) == {}, "the content type would be sent twice"


def test_pieces_go_to_each_request_in_its_turn(monkeypatch):
    context, sent = handler.Context("m", ""), []
    context.begin([handler.RequestInfo("a"), handler.RequestInfo("b")], None, lambda *piece: sent.append(piece))
    send_intermediate_predict_response(["x", {"y": 1}], context.request_ids, "Intermediate", 200, context)
    assert sent == [(0, "x"), (1, {"y": 1})]
    monkeypatch.setenv("LOCAL_RANK", "1")
    send_intermediate_predict_response(["x", "y"], context.request_ids, "Intermediate", 200, context)
    assert len(sent) == 2, "other ranks are silent"


def test_prediction_exception_carries_its_code_to_the_client():
    error = PredictionException("no such voice", 513)
    assert str(error) == "no such voice : 513"
    assert refusal(error) == (513, "no such voice")
    assert PredictionException is util.PredictionException


@pytest.mark.parametrize(
    ("name", "prefix", "message"),
    [("", None, "empty"), ("Nope", None, "in no module"), ("json.Nope", None, "no Nope in json")],
)
def test_a_class_that_cannot_be_imported_is_named(name, prefix, message):
    with pytest.raises(ImportError, match=message):
        import_class(name, prefix)


def test_classes_are_imported_with_and_without_a_prefix():
    assert import_class("json.JSONEncoder") is json.JSONEncoder
    assert import_class("JSONEncoder", "json") is json.JSONEncoder
    assert import_class("encoder.JSONEncoder", "json") is json.JSONEncoder


def test_labels_are_read_and_applied(tmp_path, caplog):
    path = tmp_path / "index_to_name.json"
    assert util.load_label_mapping(path) is None
    assert "is missing" in caplog.text
    path.write_text('{"0": ["n1", "cat"], "1": "dog"}')
    mapping = util.load_label_mapping(path)
    assert mapping == {"0": "cat", "1": "dog"}
    assert util.map_class_to_label([[0.9, 0.1]], mapping, [[1, 0]]) == [{"dog": 0.9, "cat": 0.1}]
    assert util.map_class_to_label([[0.9, 0.1], [0.2, 0.8]]) == [{"0": 0.9, "1": 0.1}, {"0": 0.2, "1": 0.8}]
    path.write_text('{"object_type_names": ["cat", "dog"]}')
    assert util.load_label_mapping(path) == {"0": "cat", "1": "dog"}
    path.write_text('{"0": 7}')
    with pytest.raises(ValueError, match="class '0'"):
        util.load_label_mapping(path)


def test_only_classes_of_the_module_itself_are_listed():
    module = types.ModuleType("made")
    exec("import json\nfrom json import JSONEncoder\nclass A: pass\nclass B(A): pass", vars(module))
    assert util.list_classes_from_module(module) == [module.A, module.B]
    assert util.list_classes_from_module(module, module.B) == [module.B]


def test_backends_and_yaml(tmp_path, caplog):
    assert util.check_valid_pt2_backend("inductor")
    assert not util.check_valid_pt2_backend("nope")
    assert "nope is not a supported backend" in caplog.text
    (tmp_path / "c.yaml").write_text("a: [1]")
    assert util.get_yaml_config(tmp_path / "c.yaml") == {"a": [1]}


def test_a_deprecated_function_warns_and_works():
    @util.deprecated(version=1.0, replacement="there", klass=DeprecationWarning)
    def old(value):
        return value

    with pytest.warns(DeprecationWarning, match=r"old is deprecated in 1\.0 and moved to there"):
        assert old(3) == 3
