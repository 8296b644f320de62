"""A body that was taken for a form: the refusal says so, as nobody would guess it from what is missing."""

import pytest

from mlserve.handler import PredictionError
from mlserve.handlers.rows import explained, read_rows

HINT = ". The body came as application/x-www-form-urlencoded: send its own content-type"


def refuse(row):
    raise PredictionError(415, "no image")


@pytest.mark.parametrize(
    "row",
    [{"a great film": ""}, {'{"text": "a great film"}': ""}, {"\xff\xd8\xff\xe0\x00JFIF": "x"}, {'["a"]': b""}],
    ids=["text", "object", "jpeg", "array"],
)
def test_a_body_that_became_the_name_of_a_field_is_told_so(row):
    _, refused = read_rows([row], refuse)
    assert (refused[0].status, refused[0].message) == (415, "no image" + HINT)
    _, refused = read_rows(range(1), refuse, [row])
    assert refused[0].message == "no image" + HINT


@pytest.mark.parametrize(
    "row",
    [{"body": b""}, {"data": b""}, {"text": "a", "context": "b"}, {}, [1, 2], "text"],
    ids=["body", "data", "fields", "nothing", "list", "text"],
)
def test_what_was_no_mistake_is_left_as_it_is(row):
    error = PredictionError(400, "no image")
    assert explained(error, row) is error


def test_it_is_not_said_twice():
    error = PredictionError(400, "The body came as application/x-www-form-urlencoded: send another")
    assert explained(error, {"{}": ""}) is error
