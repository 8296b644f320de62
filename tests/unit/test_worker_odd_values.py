"""What a handler returns, raises or asks with may be anything: it costs the item its answer, never the worker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.worker_rig import Rig

from mlserve.handler import PredictionError, Response


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("nothing to say")


class Shy:
    def tolist(self) -> list[Any]:
        raise RuntimeError("not today")


def headers(value: Any) -> Response:
    response = Response("x")
    response.headers = value
    return response


@pytest.mark.parametrize(
    "element",
    [headers(None), headers([("a", "b")]), np.zeros((2, 3), order="F").data, np.zeros((0, 3)).data, Shy(), Mute()],
    ids=["no headers", "a list of headers", "fortran", "no rows", "no list", "no text"],
)
def test_an_odd_element_does_not_cost_the_others_their_answers(element: Any) -> None:
    rig = Rig(lambda data, context: [element, "fine"])
    items, bodies = rig.ask(b"1", b"2")
    assert items[0].error == "handler_failed" or bodies[0]
    assert (items[1].error, bodies[1]) == ("", b"fine")


@pytest.mark.parametrize(("status", "message"), [(400, ValueError("bad")), (422.0, {"why": 1}), (np.int64(404), 5)])
def test_a_refusal_with_an_odd_message_is_one_that_can_be_sent(status: Any, message: Any) -> None:
    rig = Rig(lambda data, context: [PredictionError(status, message)])
    [item], _ = rig.ask(b"1")
    assert (type(item.status), item.status, item.message) == (int, int(status), str(message))


def test_rows_can_be_asked_for_with_any_kind_of_integer() -> None:
    def handle(data: Any, context: Any) -> list[str]:
        return [str(context.is_cancelled(np.int64(row))) for row in range(len(data))]

    assert Rig(handle).ask(b"1", b"2")[1] == [b"False", b"False"]
