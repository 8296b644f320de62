"""Envelopes: the handler sees the inputs alone, and each request gets the answers to its own."""

import asyncio
import json

import pytest

from mlserve.handler import Context, PredictionError, RequestInfo
from mlserve.handlers.envelopes import ENVELOPES, enclosed

np = pytest.importorskip("numpy")


def context(*explain):
    made = Context("m", "", {"model": {"modelName": "net", "modelVersion": "2.0"}})
    made.begin([RequestInfo(f"id{n}", (), {"explain": str(flag)}) for n, flag in enumerate(explain or (False,))])
    return made


def double(data, context):
    return [value * 2 for value in data]


def test_body_hands_on_the_values():
    seen = []
    enclosed("body", lambda data, context: seen.extend(data) or data)([{"data": 1, "x": 2}, {"body": b"b"}], context())
    assert seen == [1, b"b"]


def test_json_answers_each_request_with_its_own():
    rows = [{"body": {"instances": [1, 2]}}, {"data": b'{"instances": [3]}'}]
    assert enclosed("json", double)(rows, context()) == ['{"predictions": [2, 4]}', '{"predictions": [6]}']


def test_json_decodes_base64_at_both_places():
    rows = [{"body": {"instances": [{"b64": "YQ=="}, {"image": {"b64": "Yg=="}, "n": 1}]}}]
    seen = []
    enclosed("json", lambda data, context: seen.extend(data) or [1, 2])(rows, context())
    assert seen == [b"a", {"image": b"b", "n": 1}]


def test_kserve_names_what_was_asked_for():
    rows = [{"body": {"instances": [1, 2]}}, {"body": {"instances": [3]}}]
    assert enclosed("kserve", double)(rows, context(False, True)) == [{"predictions": [2, 4]}, {"explanations": [6]}]


def tensor(data, datatype="FP32", **other):
    return {"name": "a", "shape": [2, 2], "datatype": datatype, "data": data, **other}


def test_kserve_v2_nests_the_input_and_flattens_the_output():
    seen = []

    def handle(data, context):
        seen.extend(data)
        return [[[0.5, 1.5]], ["x", "y"]]

    rows = [{"body": {"id": "mine", "inputs": [tensor([1, 2, 3, 4]), tensor(["text"], "BYTES", name="b")]}}]
    (answer,) = enclosed("kservev2", handle)(rows, context())
    assert [entry["data"] for entry in seen] == [[[1, 2], [3, 4]], "text"]
    assert answer == {
        "id": "mine",
        "model_name": "net",
        "model_version": "2.0",
        "outputs": [
            {"name": "a", "datatype": "FP64", "data": [0.5, 1.5], "shape": [2]},
            {"name": "b", "datatype": "BYTES", "data": ["x", "y"], "shape": [2]},
        ],
    }
    json.dumps(answer)


def test_kserve_v2_takes_the_request_id_where_the_body_has_none():
    rows = [
        {"body": json.dumps({"inputs": [tensor([1, 2, 3, 4])]}).encode()},
        {"body": {"inputs": [tensor([[1] * 4])]}},
    ]
    answers = enclosed("kservev2", lambda data, context: [1, 2])(rows, context(False, False))
    assert [(answer["id"], answer["outputs"][0]["data"]) for answer in answers] == [("id0", [1]), ("id1", [2])]
    assert answers[0]["outputs"][0]["datatype"] == "INT64"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("json", [1]),
        ("json", {"instances": [{"b64": "a"}]}),
        ("json", {"instances": [{"b64": "é"}]}),
        ("json", {"instances": [{"image": {"b64": 3}}]}),
        ("kserve", {"inputs": [1]}),
        ("kserve", b"{oops"),
        ("kserve", b"[" * 100_000),
        ("kservev2", {"inputs": [{"name": "a"}]}),
        ("kservev2", {"inputs": [tensor([1, 2, 3])]}),
    ],
)
def test_a_request_of_another_form_is_refused_with_400_and_those_beside_it_are_answered(name, body):
    assert [answer.status for answer in enclosed(name, double)([{"body": body}], context())] == [400]
    good = {"body": {"instances": [1], "inputs": [tensor([1, 2, 3, 4], id="x")]}}
    first, wrong, last = enclosed(name, lambda data, context: [7] * len(data))(
        [good, {"body": body}, good], context(False, False, False)
    )
    assert (wrong.status, isinstance(wrong, PredictionError)) == (400, True)
    if name == "kservev2":
        assert [(answer["id"], answer["outputs"][0]["name"]) for answer in (first, last)] == [
            ("id0", "a"),
            ("id2", "a"),
        ]
    else:
        assert first == last
        assert "predictions" in first


def test_an_input_that_is_refused_fails_its_request_alone():
    refused = PredictionError(400, "no image")
    rows = [{"body": {"instances": [1, 2]}}, {"body": {"instances": [3]}}]
    answers = enclosed("kserve", lambda data, context: [1, refused, 3])(rows, context(False, False))
    assert answers == [refused, {"predictions": [3]}]


@pytest.mark.parametrize(
    ("name", "body", "empty"),
    [
        ("json", {"instances": []}, '{"predictions": []}'),
        ("kserve", {"instances": []}, {"predictions": []}),
        (
            "kservev2",
            {"inputs": [], "id": "i"},
            {"id": "i", "model_name": "net", "model_version": "2.0", "outputs": []},
        ),
    ],
)
def test_a_request_of_no_inputs_gets_no_outputs_and_the_handler_is_not_asked(name, body, empty):
    assert enclosed(name, None)([{"body": body}], context()) == [empty]


def test_outputs_that_belong_to_nobody_are_an_error():
    rows = [{"body": {"instances": [1, 2]}}, {"body": {"instances": [3]}}]
    with pytest.raises(ValueError, match="given 3 inputs and returned 2 outputs"):
        enclosed("json", lambda data, context: [1, 2])(rows, context())


@pytest.mark.parametrize("name", ENVELOPES)
def test_nothing_in_nothing_out(name):
    assert enclosed(name, lambda data, context: data)(None, context()) is None


def test_a_coroutine_is_awaited_inside():
    async def handle(data, context):
        return data

    answer = enclosed("kserve", handle)([{"body": {"instances": [1]}}], context())
    assert asyncio.run(answer) == [{"predictions": [1]}]


def test_calls_that_overlap_do_not_get_each_other_s_ids_and_names():
    async def both():
        second_began = asyncio.Event()

        async def handle(data, context):
            if data[0]["data"] == [1]:
                await second_began.wait()
            second_began.set()
            return [one["data"] for one in data]

        handler = enclosed("kservev2", handle)

        def call(value):
            entry = {"name": f"t{value}", "shape": [1], "datatype": "INT64", "data": [value]}
            return handler([{"body": {"id": f"id{value}", "inputs": [entry] * value}}], context())

        return await asyncio.gather(call(1), call(2))

    answers = [answer for (answer,) in asyncio.run(both())]
    assert [answer["id"] for answer in answers] == ["id1", "id2"]
    assert [[output["name"] for output in answer["outputs"]] for answer in answers] == [["t1"], ["t2", "t2"]]


def test_an_unknown_envelope_is_named():
    with pytest.raises(ValueError, match="'nope'; known: body, json, kserve, kservev2"):
        enclosed("nope", double)
